"""`tradeback doctor` asks InfluxDB, where one is configured. Changes nothing there: no database, no point."""

import base64
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from tradeback.cli.doctor import Finding

if TYPE_CHECKING:
    import aiohttp

    from tradeback.model.config import Config, InfluxConfig

CHECK: Final = "InfluxDB"
REACH_S: Final = 5.0
REMEDIES: Final = {
    401: "set INFLUX_TOKEN: these credentials are not accepted (InfluxDB 1.x: user:password)",
    403: "give the token or user read and write on {bucket}, or set INFLUX_TOKEN",
    404: "correct INFLUX_BUCKET, INFLUX_ORG or INFLUX_API (v1 for InfluxDB 1.x)",
    429: "let it take more, or write less to it",
}
"""What to do about an HTTP status."""


class _Fault(Exception):
    """What is wrong, and the remedy."""


async def check_influx(config: "Config") -> Finding | None:
    """Reachability, version, credentials, bucket, rights; None when there is none."""
    influx = config.influx
    if not influx.url:
        return None
    if find_spec("influxdb_client") is None:
        found = "INFLUX_URL is set and influxdb_client is not installed"
        return Finding(CHECK, "fail", found, "pip install 'tradeback[influx]', or unset INFLUX_URL")
    import aiohttp

    try:
        limit = aiohttp.ClientTimeout(total=REACH_S)
        async with aiohttp.ClientSession(timeout=limit, headers=_headers(influx)) as http:
            return await _judge(_Asked(http, influx))
    except _Fault as fault:
        found, remedy = fault.args
        return Finding(CHECK, "fail", f"{_where(influx)}: {_hidden(influx, found)}", remedy)
    except TimeoutError:
        reason = f"no answer within {REACH_S:.0f} s"
    except (aiohttp.ClientError, OSError) as error:
        reason = str(error) or type(error).__name__
    found = f"{_where(influx)} cannot be reached: {_hidden(influx, reason)}"
    return Finding(CHECK, "fail", found, "start it, or correct INFLUX_URL")


@dataclass(frozen=True, slots=True)
class _Asked:
    """One server, and how it is asked."""

    http: "aiohttp.ClientSession"
    influx: "InfluxConfig"

    async def ask(self, method: str, path: str, **query: str) -> tuple[int, str, Any]:
        """Status, text and headers of an answer."""
        where = f"{self.influx.url.rstrip('/')}{path}"
        async with self.http.request(method, where, params=query) as answer:
            return answer.status, await answer.text(errors="replace"), answer.headers

    def fault(self, what: str, status: int, text: str) -> "_Fault":
        """A refusal with its remedy."""
        remedy = REMEDIES.get(status, "look at its log").format(bucket=self.influx.bucket)
        return _Fault(f"{what}: HTTP {status}: {_short(text)}", remedy)


async def _judge(asked: _Asked) -> Finding:
    influx = asked.influx
    begin = time.perf_counter()
    _, _, headers = await asked.ask("GET", "/ping")
    answer_ms = 1e3 * (time.perf_counter() - begin)
    version = str(headers.get("X-Influxdb-Version", "")).removeprefix("v")
    _check_dialect(influx, version)
    shown = f"{_where(influx)}, version {version or 'not told'}, api {influx.api}, {answer_ms:.1f} ms"
    if not await _may_write(asked):
        return Finding(CHECK, "ok", f"{shown}, no {_noun(influx)} {influx.bucket} yet: the engine makes it")
    await _must_read(asked)
    return Finding(CHECK, "ok", f"{shown}, {_noun(influx)} {influx.bucket} may be read and written")


def _check_dialect(influx: "InfluxConfig", version: str) -> None:
    if version.startswith("1.") and influx.api != "v1":
        raise _Fault(f"version {version} does not speak api v2", "set INFLUX_API=v1")


async def _may_write(asked: _Asked) -> bool:
    """By a write of nothing, which is let in (and then perhaps refused for its emptiness, 400) where lines
    would be. False where there is no bucket and the engine can make it. Raises _Fault."""
    influx = asked.influx
    if influx.api == "v1":
        status, text, _ = await asked.ask("POST", "/write", db=influx.bucket, precision="ns")
    else:
        place = {"org": influx.org, "bucket": influx.bucket, "precision": "ns"}
        status, text, _ = await asked.ask("POST", "/api/v2/write", **place)
    if status < 300 or status == 400:
        return True
    if status == 404 and ((influx.api == "v1" and "database not found" in text) or await _has_org(asked)):
        return False
    raise asked.fault("writing", status, text)


async def _has_org(asked: _Asked) -> bool:
    """Whether the organisation is there, in which a bucket may be made. Not asked of InfluxDB 1.x."""
    import json

    if asked.influx.api == "v1":
        return False
    status, text, _ = await asked.ask("GET", "/api/v2/orgs", org=asked.influx.org)
    try:
        return status == 200 and bool(json.loads(text)["orgs"])
    except (ValueError, KeyError, TypeError):
        return False


async def _must_read(asked: _Asked) -> None:
    """A query as the engine asks it. Raises _Fault."""
    bucket = asked.influx.bucket
    status, text, _ = await asked.ask("GET", "/query", db=bucket, q="SHOW MEASUREMENTS LIMIT 1")
    if status >= 300:
        raise asked.fault("reading", status, text)
    if '"results"' not in text:
        raise _Fault("it answers, but not like InfluxDB", "correct INFLUX_URL")
    if '"error"' in text:
        remedy = f"let InfluxQL read {bucket} (InfluxDB 2: a DBRP mapping), and give the right to"
        raise _Fault(f"reading: {_short(text)}", remedy)


def _short(text: str) -> str:
    return " ".join(text.split())[:200]


def _headers(influx: "InfluxConfig") -> dict[str, str]:
    if influx.api == "v1" and ":" in influx.token:
        return {"Authorization": "Basic " + base64.b64encode(influx.token.encode()).decode()}
    return {"Authorization": f"Token {influx.token}"} if influx.token else {}


def _noun(influx: "InfluxConfig") -> str:
    return "database" if influx.api == "v1" else "bucket"


def _where(influx: "InfluxConfig") -> str:
    """Its address without what may stand before the @."""
    scheme, _, rest = influx.url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _hidden(influx: "InfluxConfig", text: str) -> str:
    return text.replace(influx.token, "***") if influx.token else text
