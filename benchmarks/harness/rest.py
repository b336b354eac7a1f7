"""The REST side of the fake exchange: time, exchangeInfo, klines. Shapes as in Binance's documentation."""

import functools
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

INTERVAL_MS = {
    "1s": 1_000, "1m": 60_000, "5m": 300_000, "15m": 900_000, "1h": 3_600_000,
    "4h": 14_400_000, "1d": 86_400_000, "1w": 604_800_000, "1M": 2_592_000_000,
}  # fmt: skip
HISTORY_MS = 4 * 365 * 86_400_000
HIGH, LOW = "70000.00000000", "50000.00000000"
"""Beyond every trade that the benchmarks send, so that Enigma's range stays put."""


def exchange_info(symbols: Sequence[str]) -> dict[str, object]:
    """exchangeInfo for the given symbols, every one trading against USDT."""
    return {
        "timezone": "UTC",
        "serverTime": time.time_ns() // 1_000_000,
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}
        ],
        "exchangeFilters": [],
        "symbols": [_symbol(name) for name in symbols],
    }


def _symbol(name: str) -> dict[str, object]:
    return {
        "symbol": name, "status": "TRADING", "baseAsset": name[:-4], "baseAssetPrecision": 8,
        "quoteAsset": name[-4:], "quotePrecision": 8, "quoteAssetPrecision": 8,
        "isSpotTradingAllowed": True, "permissions": [], "permissionSets": [["SPOT"]],
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01000000", "maxPrice": "1000000.00000000",
             "tickSize": "0.01000000"},
            {"filterType": "LOT_SIZE", "minQty": "0.00000001", "maxQty": "9000000.00000000",
             "stepSize": "0.00000001"},
            {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True,
             "maxNotional": "9000000.00000000", "applyMaxToMarket": False, "avgPriceMins": 5},
        ],
    }  # fmt: skip


@functools.lru_cache(maxsize=256)
def klines(interval: str, start_ms: int, end_ms: int, limit: int) -> bytes:
    """Ascending kline rows as JSON: oldest from `start_ms` (0: newest up to `end_ms`), at most `limit`."""
    step = INTERVAL_MS[interval]
    last = end_ms // step * step
    first = last - (limit - 1) * step if not start_ms else -(-start_ms // step) * step
    first = max(first, (end_ms - HISTORY_MS) // step * step)
    opens = range(first, last + 1, step)[:limit]
    rows = [
        [at, "60000.00000000", HIGH, LOW, "60000.00000000", "10.00000000", at + step - 1,
         "600000.00000000", 100, "5.00000000", "300000.00000000", "0"]
        for at in opens
    ]  # fmt: skip
    return json.dumps(rows, separators=(",", ":")).encode()


class _Server(ThreadingHTTPServer):
    """Says nothing when a client hangs up in the middle of an answer: engines are stopped at any time."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Everything but a hang-up is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class RestServer:
    """Serves on a free port in threads; counts requests."""

    def __init__(self, symbols: Sequence[str]) -> None:
        """Starts at once."""
        self.requests = 0
        self.last_request_s = 0.0
        self._symbols = list(symbols)
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                """In the connection's own thread, which takes what sender and receivers leave of the core."""
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
                super().setup()

            def do_GET(self) -> None:
                status, body = owner.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-MBX-USED-WEIGHT-1M", "1")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Not a line per request."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, target: str) -> tuple[int, bytes]:
        """(status, body) of one GET."""
        self.requests += 1
        self.last_request_s = time.monotonic()
        path, query = self.parts(target)
        match path:
            case "/api/v3/ping":
                return 200, b"{}"
            case "/api/v3/time":
                return 200, json.dumps({"serverTime": time.time_ns() // 1_000_000}).encode()
            case "/api/v3/exchangeInfo":
                return 200, json.dumps(exchange_info(self._asked(query))).encode()
            case "/api/v3/klines" if query.get("interval") in INTERVAL_MS:
                end = min(int(query.get("endTime", 2**62)), time.time_ns() // 1_000_000)
                start = int(query.get("startTime", 0))
                return 200, klines(query["interval"], start, end // 1000 * 1000, int(query.get("limit", 500)))
        return 404, b'{"code":-1000,"msg":"not part of this fake exchange"}'

    @staticmethod
    def parts(target: str) -> tuple[str, dict[str, str]]:
        """Path and query of a request."""
        found = urlsplit(target)
        return found.path, {name: values[-1] for name, values in parse_qs(found.query).items()}

    def _asked(self, query: dict[str, str]) -> list[str]:
        if "symbols" in query:
            asked = set(json.loads(query["symbols"]))
        elif "symbol" in query:
            asked = {query["symbol"]}
        else:
            return self._symbols
        return [name for name in self._symbols if name in asked]

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
