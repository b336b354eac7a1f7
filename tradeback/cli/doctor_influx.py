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

    async def must(self, what: str, method: str, path: str, **query: str) -> str:
        """The text of an answer that is none of refusal. Raises _Fault."""
        status, text, _ = await self.ask(method, path, **query)
        if status >= 300:
            remedy = REMEDIES.get(status, "look at its log").format(bucket=self.influx.bucket)
            raise _Fault(f"{what}: HTTP {status}: {' '.join(text.split())[:200]}", remedy)
        return text


async def _judge(asked: _Asked) -> Finding:
    influx = asked.influx
    begin = time.perf_counter()
    _, _, headers = await asked.ask("GET", "/ping")
    answer_ms = 1e3 * (time.perf_counter() - begin)
    version = str(headers.get("X-Influxdb-Version", "")).removeprefix("v")
    _check_dialect(influx, version)
    is_there = await (_has_database if influx.api == "v1" else _has_bucket)(asked)
    shown = f"{_where(influx)}, version {version or 'not told'}, api {influx.api}, {answer_ms:.1f} ms"
    if not is_there:
        return Finding(CHECK, "ok", f"{shown}, no {_noun(influx)} {influx.bucket} yet: the engine makes it")
    await _check_rights(asked)
    return Finding(CHECK, "ok", f"{shown}, {_noun(influx)} {influx.bucket} may be read and written")


def _check_dialect(influx: "InfluxConfig", version: str) -> None:
    if version.startswith("1.") and influx.api != "v1":
        raise _Fault(f"version {version} does not speak api v2", "set INFLUX_API=v1")
    if version.startswith(("2.", "3.")) and influx.api == "v1":
        raise _Fault(f"version {version} wants api v2", "set INFLUX_API=v2, INFLUX_ORG and INFLUX_TOKEN")


async def _has_database(asked: _Asked) -> bool:
    """InfluxDB 1.x tells who may not see a database that there is none: writing will show it."""
    import json

    text = await asked.must("listing databases", "GET", "/query", q="SHOW DATABASES")
    try:
        series = json.loads(text)["results"][0].get("series", [])
        return [asked.influx.bucket] in series[0].get("values", []) if series else False
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise _Fault("it answers, but not like InfluxDB", "correct INFLUX_URL") from None


async def _has_bucket(asked: _Asked) -> bool:
    """Whether the bucket is there. Raises _Fault where the engine could not make it."""
    import json

    influx = asked.influx
    text = await asked.must(
        "looking for the bucket", "GET", "/api/v2/buckets", name=influx.bucket, org=influx.org
    )
    try:
        if json.loads(text).get("buckets"):
            return True
        orgs = json.loads(await asked.must("looking for the org", "GET", "/api/v2/orgs", org=influx.org))
        if orgs.get("orgs"):
            return False
    except (ValueError, AttributeError):
        raise _Fault("it answers, but not like InfluxDB", "correct INFLUX_URL") from None
    raise _Fault(f"no bucket {influx.bucket}, and no org {influx.org}", "make both, or correct INFLUX_ORG")


async def _check_rights(asked: _Asked) -> None:
    """A write of nothing, which is refused for what it lacks only where it was let in; and a query."""
    influx = asked.influx
    if influx.api == "v1":
        path, place = "/write", {"db": influx.bucket}
    else:
        path, place = "/api/v2/write", {"org": influx.org, "bucket": influx.bucket}
    status, text, _ = await asked.ask("POST", path, precision="ns", **place)
    if status >= 300 and status != 400:
        remedy = REMEDIES.get(status, "look at its log").format(bucket=influx.bucket)
        raise _Fault(f"writing: HTTP {status}: {' '.join(text.split())[:200]}", remedy)
    text = await asked.must("reading", "GET", "/query", db=influx.bucket, q="SHOW MEASUREMENTS LIMIT 1")
    if '"error"' in text:
        remedy = f"let InfluxQL read {influx.bucket} (InfluxDB 2: a DBRP mapping), and give it the right to"
        raise _Fault(f"reading: {' '.join(text.split())[:200]}", remedy)


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
