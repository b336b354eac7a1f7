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
            await self._send("POST", "/query", {"q": f"CREATE DATABASE {quoted(self._config.bucket)}"})
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
        now. A partial write has stored the good lines.
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
        if status in (400, 413, 422):
            raise WriteRefused(text)
        if status == 404 and self._config.api == "v1":
            await self._send("POST", "/query", {"q": f"CREATE DATABASE {quoted(self._config.bucket)}"})
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
        result = json.loads(text)["results"][0]
        if "error" in result:
            raise StoreError(f"InfluxDB at {self._host} refuses a query: {result['error'][:TEXT_MAX]}")
        return list(result.get("series", ()))

    async def _make_bucket(self) -> None:
        """Make the bucket where it is missing and the token may; where it may not, the write will tell."""
        name, org = self._config.bucket, self._config.org
        status, text = await self._send("GET", "/api/v2/buckets", {"name": name, "org": org})
        if status == 401:
            raise self._refusal(status, text)
        if status == 200 and json.loads(text).get("buckets"):
            return
        status, text = await self._send("GET", "/api/v2/orgs", {"org": org})
        orgs = json.loads(text).get("orgs") if status == 200 else None
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

    def _refusal(self, status: int, text: str) -> StoreError:
        said = text.strip().replace("\n", " ")[:TEXT_MAX]
        if self._config.token:
            said = said.replace(self._config.token, "***")
        remedies = {
            401: "it does not accept the credentials: set INFLUX_TOKEN",
            403: f"the token may not use {self._config.bucket}: give it read and write, or set INFLUX_TOKEN",
            404: (
                f"it knows no such path or bucket {self._config.bucket}: set INFLUX_BUCKET, INFLUX_ORG, "
                "or INFLUX_API (v1 for InfluxDB 1.x)"
            ),
            429: "it asks to write less",
        }
        remedy = remedies.get(status, "it cannot take it now")
        return StoreError(f"InfluxDB at {self._host}: {remedy} (HTTP {status}: {said})")


def quoted(name: str) -> str:
    """A name as InfluxQL reads it."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def literal(text: str) -> str:
    """A string as InfluxQL reads it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
