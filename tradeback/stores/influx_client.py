"""InfluxDB over HTTP: `InfluxDBClientAsync` as the transport, two dialects of writing, InfluxQL for reading.

The library retries nothing, ignores per-call time limits, and names the address in its errors, so what it
raises is put into words here: no token, and the remedy. Time limits and retries are the caller's.
"""

import base64
import json
import re
import ssl
from typing import Any, Final
from urllib.parse import urlsplit

from tradeback.model.config import InfluxConfig
from tradeback.model.errors import StoreError

TEXT_MAX: Final = 300
_DROPPED = re.compile(r"beyond retention policy.*?dropped=(\d+)")
_LIMIT = re.compile(r"max-(?:series-per-database|values-per-tag)")
_FULL = re.compile(r"no space left on device|disk quota exceeded|file too large", re.IGNORECASE)
_ABSENT = re.compile(r"^database not found", re.IGNORECASE)


class WriteRefused(StoreError):
    """InfluxDB has looked at the lines and does not want (all of) them."""


class InfluxClient:
    """One session. `open` before anything else; may be opened again after `close`."""

    def __init__(self, config: InfluxConfig) -> None:
        self._config = config
        self._client: Any = None
        """An InfluxDBClientAsync; its methods carry no types."""
        parts = urlsplit(config.url)
        self._host = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 8086)}"
        token = config.token
        if config.api == "v1" and ":" in token:
            self._authorization = "Basic " + base64.b64encode(token.encode()).decode()
        else:
            self._authorization = f"Token {token}" if token else ""
        self._place = (
            {"db": config.bucket, "precision": "ns"}
            if config.api == "v1"
            else {"org": config.org, "bucket": config.bucket, "precision": "ns"}
        )

    async def open(self) -> None:
        """Connect, and make the bucket or database when it is missing. Raises StoreError with the remedy."""
        await self.close()
        from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync

        plain = urlsplit(self._config.url).scheme == "http"
        # Loading the authorities takes 25 ms of the loop; without TLS nobody asks them.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else ssl.create_default_context()
        # The drain limits every call; the client's own limit is only the net below it.
        self._client = InfluxDBClientAsync(
            url=self._config.url, token="", org=self._config.org, timeout=60_000, ssl_context=context
        )
        if self._config.api == "v1":
            await self._make_database()
        else:
            await self._make_bucket()

    async def close(self) -> None:
        """Let go of the session."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def write(self, body: bytes) -> int:
        """Send lines; returns how many the server let go because they are older than its retention.

        Raises WriteRefused when it does not want them, with its words, StoreError when it cannot take them
        now, which includes that it is full. A partial write has stored the good lines.
        """
        if not body:
            return 0
        path = "/write" if self._config.api == "v1" else "/api/v2/write"
        status, text = await self._send("POST", path, self._place, body)
        if status < 300:
            return 0
        gone = _DROPPED.search(text)
        if gone is not None:
            return int(gone[1])
        if status in (400, 413, 422) and not _LIMIT.search(text):
            raise WriteRefused(text)
        if status == 404 and self._config.api == "v1":
            await self._make_database()
        raise self._refusal(status, text)

    async def query(self, statement: str) -> list[dict[str, Any]]:
        """The series that an InfluxQL statement answers: name, tags, columns, values, times in ns.

        Raises StoreError.
        """
        values = {"db": self._config.bucket, "q": statement, "epoch": "ns"}
        status, text = await self._send("GET", "/query", values)
        if status == 400:
            raise StoreError(f"InfluxDB at {self._host} refuses a query: {text.strip()[:TEXT_MAX]}")
        if status >= 300:
            raise self._refusal(status, text)
        result = self._json(text, "results")[0]
        if _ABSENT.match(str(result.get("error", ""))):
            raise self._refusal(404, result["error"])
        if "error" in result:
            raise StoreError(f"InfluxDB at {self._host} refuses a query: {result['error'][:TEXT_MAX]}")
        return list(result.get("series", ()))

    async def _make_database(self) -> None:
        """Make the database where it is missing. A user who may not (403) may write to one that is there."""
        asked = {"q": f"CREATE DATABASE {quoted(self._config.bucket)}"}
        status, text = await self._send("POST", "/query", asked)
        if status >= 300 and status != 403:
            raise self._refusal(status, text)

    async def _make_bucket(self) -> None:
        """Make the bucket where it is missing and the token may; where it may not, the write will tell."""
        name, org = self._config.bucket, self._config.org
        status, text = await self._send("GET", "/api/v2/buckets", {"name": name, "org": org})
        if status == 401:
            raise self._refusal(status, text)
        if status == 200 and self._json(text, "buckets"):
            return
        status, text = await self._send("GET", "/api/v2/orgs", {"org": org})
        orgs = self._json(text, "orgs") if status == 200 else None
        if not orgs:
            return
        asked = {"orgID": orgs[0]["id"], "name": name, "retentionRules": []}
        await self._send("POST", "/api/v2/buckets", {}, json.dumps(asked).encode(), "application/json")

    async def _send(
        self, method: str, path: str, values: dict[str, str], body: bytes = b"", kind: str = "text/plain"
    ) -> tuple[int, str]:
        """Status and text of the answer. Raises StoreError when there is none."""
        from aiohttp import ClientError

        if self._client is None:
            raise StoreError("InfluxDB: the client is closed")
        headers = {"Content-Type": f"{kind}; charset=utf-8"}
        if self._authorization:
            headers["Authorization"] = self._authorization
        payload: Any = body
        if kind == "application/json":
            payload = json.loads(body)  # the library writes JSON itself
        try:
            answer = await self._client.api_client.call_api(
                path,
                method,
                query_params=list(values.items()),
                header_params=headers,
                body=payload or None if method == "GET" else payload,
                _preload_content=False,
            )
            async with answer:
                return int(answer.status), (await answer.read()).decode("utf-8", "replace")
        except (ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise StoreError(
                f"InfluxDB at {self._host} does not answer ({type(error).__name__}): is INFLUX_URL right?"
            ) from None

    def _json(self, text: str, key: str) -> Any:
        """A list in an answer. Raises StoreError when it is no answer of an InfluxDB."""
        try:
            found = json.loads(text).get(key) or []
        except (ValueError, AttributeError):
            raise StoreError(f"what answers at {self._host} is no InfluxDB: correct INFLUX_URL") from None
        if key == "results" and not found:
            raise StoreError(f"what answers at {self._host} is no InfluxDB: correct INFLUX_URL")
        return found

    def _refusal(self, status: int, text: str) -> StoreError:
        said = self._without_secret(text.strip().replace("\n", " ")[:TEXT_MAX])
        return StoreError(f"InfluxDB at {self._host}: {self._remedy(status, text)} (HTTP {status}: {said})")

    def _remedy(self, status: int, text: str) -> str:
        bucket, is_old = self._config.bucket, self._config.api == "v1"
        if status == 507 or _FULL.search(text):
            return "its disk is full: make room there"
        if _LIMIT.search(text):
            return "it takes no more series: raise max-series-per-database and max-values-per-tag there"
        if status == 401:
            form = " to USER:PASSWORD" if is_old else ""
            return f"it does not accept the credentials: set INFLUX_TOKEN{form}"
        if status == 403:
            if not is_old:
                return f"the token may not use {bucket}: give it read and write, or set INFLUX_TOKEN"
            make = (
                f"CREATE DATABASE {quoted(bucket)} if it is missing and GRANT ALL ON {quoted(bucket)} TO it"
            )
            return f"the user may not use {bucket}: as an administrator {make}, or set INFLUX_TOKEN"
        if status == 404 and is_old and "database not found" in text:
            return (
                f"it has no database {bucket}, and this user may not make it: "
                f"CREATE DATABASE {quoted(bucket)} as an administrator, or correct INFLUX_BUCKET"
            )
        if status in (404, 405):
            return (
                f"it knows no such path or bucket {bucket}: make the bucket, correct INFLUX_BUCKET or "
                "INFLUX_ORG, or set INFLUX_API (v1 for InfluxDB 1.x)"
            )
        return "it asks to write less" if status == 429 else "it cannot take it now"

    def _without_secret(self, text: str) -> str:
        token = self._config.token
        for secret in (token, token.partition(":")[2]):
            text = text.replace(secret, "***") if secret else text
        return text


def quoted(name: str) -> str:
    """A name as InfluxQL reads it."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def literal(text: str) -> str:
    """A string as InfluxQL reads it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
