"""`GET /api/v1/stats`: the health of the feed in one small answer, for whoever looks once a second.

Counters and histograms are cumulative, so each reader takes the difference of its own readings: nobody's
interval is another's business. What is the same for all readers is made at most every KEPT_S.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import numpy as np
from aiohttp import web

from tradeback.api.context import GapSource, ServingContext
from tradeback.api.describe import Answer, operation, word
from tradeback.api.errors import ApiError, json_response
from tradeback.api.health import LINE_PREFIX, missing, overall
from tradeback.derive.completeness_gap import OPEN
from tradeback.model.symbols import Symbol
from tradeback.ops.health import ComponentHealth
from tradeback.ops.metrics import LATENCY_BOUNDS_US, Collects, Family, Histogram
from tradeback.version import VERSION

KEPT_S = 0.4
"""How old an answer may be."""
COUNTS = {
    "messages": "tradeback_ingest_messages",
    "accepted": "tradeback_ingest_accepted",
    "duplicates": "tradeback_ingest_duplicates",
}
"""Counters by stream."""
HOPS = {
    "exchange_to_engine": "tradeback_receive_latency_seconds",
    "inside_engine": "tradeback_publish_latency_seconds",
}
"""Histograms; those of several processes are added up."""
AHEAD = "tradeback_receive_ahead"
GAUGES = ("clients", "lagging")
"""Of the feed."""
WANTED = frozenset((*COUNTS.values(), *HOPS.values(), AHEAD, *(f"tradeback_feed_{name}" for name in GAUGES)))
SYMBOL = word("symbol", "tell also how far this one is complete", example="BTCUSDT")
TROUBLES_MAX = 8
LINE_DETAILS = ("reconnects", "stalls", "wins", "losses", "fills", "lag_ms", "endpoint")

Json = dict[str, Any]


class StatsRoutes:
    """The handler, over one context."""

    def __init__(self, context: ServingContext, page: Callable[[], Awaitable[str]]) -> None:
        """`page` tells the version of the page's files, so that a page in a browser knows of a newer one."""
        self._context, self._page = context, page
        self._started_ms = context.clock.wall_ns() / 1e6
        self._kept: Json = {}
        self._kept_ns = -(1 << 62)
        self._asked = -1
        self._wanted: list[Collects] = []

    def routes(self) -> list[web.RouteDef]:
        """For `Application.add_routes`."""
        return [web.get("/api/v1/stats", self.stats)]

    @operation(
        "The feed's health in one small answer",
        tag="market",
        takes=(SYMBOL,),
        answers={
            200: Answer("counters since the start, lines and gaps now", {"type": "object"}),
            404: "no such symbol",
        },
    )
    async def stats(self, request: web.Request) -> web.Response:
        """Rates, latencies, lines, gaps; with `symbol` also how far that one is complete."""
        clock = self._context.clock
        asked_ms = clock.wall_ns() / 1e6
        if clock.steady_ns() - self._kept_ns > KEPT_S * 1e9:
            self._kept_ns = clock.steady_ns()
            self._kept = self._make() | {"page": await self._page()}
        answer = dict(self._kept)
        name = SYMBOL.read(request.query)
        if name:
            symbol = self._context.symbols.find(name)
            if symbol is None:
                raise ApiError(
                    404, "unknown_symbol", f"no symbol {name[:40]!r}; GET /api/v1/symbols lists them"
                )
            answer["symbol"] = self._complete(symbol)
        # Between these two lies our own time: who compares clocks by request and answer leaves it out.
        answer["asked"], answer["now"] = asked_ms, clock.wall_ns() / 1e6
        response = json_response(answer)
        response.headers["Cache-Control"] = "no-store"
        return response

    def _make(self) -> Json:
        context = self._context
        parts = context.health()
        return {
            "timestamp": context.clock.wall_ns() / 1e6,
            "started_at": self._started_ms,
            "version": VERSION,
            "status": overall(parts),
            "troubles": _troubles(parts),
            "waiting_for": missing(context, parts),
            **numbers(self._families()),
            "history": next((part.state for part in parts if part.name == "history"), "starting"),
            "clock": _clock(parts),
            "lines": _lines(parts),
            "gaps": _gaps(context.gaps),
            "tape": {"epoch": getattr(context.tape, "epoch", None), "sequence": context.tape.next_sequence},
        }

    def _families(self) -> list[Family]:
        """Those that are wanted. Only the collectors that have any are asked: all together cost a ms."""
        collectors = self._context.collectors
        if len(collectors) != self._asked:
            self._asked = len(collectors)
            self._wanted = [
                one for one in collectors if any(family.name in WANTED for family in one.collect())
            ]
        return [family for one in self._wanted for family in one.collect() if family.name in WANTED]

    def _complete(self, symbol: Symbol) -> Json:
        source = self._context.gaps
        reached = source.ledger.complete_through(symbol.id) if source is not None else None
        span = source.ledger.span(symbol.id) if source is not None else None
        return {
            "symbol": symbol.symbol,
            "complete_through_id": reached[0] if reached is not None else None,
            "complete_through": reached[1] / 1e3 if reached is not None and reached[1] else None,
            "from_id": span[0] if span is not None else None,
            "newest_id": span[1] if span is not None else None,
        }


def numbers(families: Iterable[Family]) -> Json:
    """The counters and histograms that the answer shows. Latencies in us."""
    held = {family.name: family for family in families}
    found: Json = {name: _by_stream(held.get(family)) for name, family in COUNTS.items()}
    for name, wanted in HOPS.items():
        found[name] = _histogram(held.get(wanted))
    found["exchange_to_engine"]["ahead"] = sum(_by_stream(held.get(AHEAD)).values())
    for name in GAUGES:
        found[f"feed_{name}"] = int(sum(_by_stream(held.get(f"tradeback_feed_{name}")).values()))
    return found


def _by_stream(family: Family | None) -> dict[str, float]:
    found: dict[str, float] = {}
    for labels, value in family.samples if family is not None else ():
        if not isinstance(value, Histogram):
            name = labels.get("stream", "all")
            found[name] = found.get(name, 0) + value
    return found


def _histogram(family: Family | None) -> Json:
    bounds = list(LATENCY_BOUNDS_US)
    counts = np.zeros(len(bounds) + 1, np.int64)
    for _, value in family.samples if family is not None else ():
        if isinstance(value, Histogram) and len(value.counts) == len(counts):
            counts += value.counts
    return {"bounds_us": bounds, "counts": counts.tolist()}


def _troubles(parts: Iterable[ComponentHealth]) -> list[Json]:
    """Components that are not ok, the worst first."""
    bad = [part for part in parts if part.state != "ok"]
    bad.sort(key=lambda part: ("down", "degraded", "starting").index(part.state))
    return [
        {"name": part.name, "state": part.state, "last_error": part.last_error} for part in bad[:TROUBLES_MAX]
    ]


def _clock(parts: Iterable[ComponentHealth]) -> Json | None:
    """The exchange's clock minus this machine's, and how wrong that can be at most; None when not known."""
    details = next((part.details for part in parts if part.name == "clock"), None)
    if details is None or details.get("offset_ms") is None:
        return None
    return {name: details[name] for name in ("offset_ms", "error_ms", "is_apart")}


def _lines(parts: Iterable[ComponentHealth]) -> dict[str, list[Json]]:
    """Streams by line: {"a": [{"stream": "trade:0", "state": "ok", ...}], "b": ...}."""
    found: dict[str, list[Json]] = {}
    for part in parts:
        kind, _, rest = part.name.partition(":")
        line, _, stream = rest.partition(":")
        if kind == LINE_PREFIX and stream:
            details = part.details or {}
            told: Json = {"stream": stream, "state": part.state, "since": part.since_ns // 1_000_000}
            told["last_error"] = part.last_error
            told |= {name: details[name] for name in LINE_DETAILS if name in details}
            found.setdefault(line, []).append(told)
    return found


def _gaps(source: GapSource | None) -> Json | None:
    """Open now; repaired and unrepairable since the start. None while nothing is known of gaps."""
    if source is None:
        return None
    ledger = source.ledger
    opened = ledger.gaps(OPEN)
    return {
        "open": len(opened),
        "missing": sum(gap.missing for gap in opened),
        "repaired": ledger.repaired,
        "unrepairable": ledger.unrepairable,
    }
