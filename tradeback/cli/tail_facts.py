"""What `tradeback tail` knows: the page's facts, gathered from the feed and /api/v1/stats. Draws nothing."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from tradeback.cli.board import Row
from tradeback.client import Batch, BatchV1, Control, Event, Feed, FeedSymbol
from tradeback.client.stats import (
    Between,
    ClockBound,
    Hop,
    Recent,
    Stats,
    between,
    first_share,
    line_state,
    moved,
)
from tradeback.derive.enigma import FIB_NAMES, fib_of
from tradeback.model.record import LATE, REPAIRED

STALE_S: Final = 3.0
"""Facts of an engine that has not answered for so long are said to be old."""
LINES: Final = ("a", "b")


@dataclass(slots=True)
class SymbolFacts(Row):
    """One symbol: prices of the feed, levels, and how far it is complete."""

    bid: float | None = None
    ask: float | None = None
    ath: float | None = None
    atl: float | None = None
    complete_id: int | None = None
    complete_ms: float | None = None
    """Exchange's time of the trade `complete_id`."""
    newest_id: int | None = None

    def take_levels(self, level: float, ath: float, atl: float) -> None:
        """Enigma of a trade."""
        self.level, self.ath, self.atl = level, ath, atl

    @property
    def fib(self) -> dict[str, float]:
        """Fibonacci levels, 0 is the high; empty before the first Enigma."""
        if self.ath is None or self.atl is None:
            return {}
        return dict(zip(FIB_NAMES, fib_of(self.ath, self.atl), strict=True))

    @property
    def waiting(self) -> int | None:
        """Ids behind the one up to which all is complete: newer trades that wait for a gap before them."""
        if self.complete_id is None or self.newest_id is None:
            return None
        return max(0, self.newest_id - self.complete_id)


@dataclass(slots=True)
class Facts:
    """All symbols and the health of the feed. Times are wall clock ms, unless they are named otherwise."""

    url: str
    rows: dict[int, SymbolFacts] = field(default_factory=dict)
    is_connected: bool = True
    lost_ms: float = 0.0
    """Since when the feed is lost."""
    reason: str = ""
    """Why it is, in a few words."""
    stats: Stats | None = None
    """The newest answer."""
    stats_ms: float = 0.0
    """When it was here."""
    trouble: str = ""
    """Why there is no newer one."""
    told: Between | None = None
    _by_name: dict[str, SymbolFacts] = field(default_factory=dict)
    _clock: ClockBound = field(default_factory=ClockBound)
    _arrivals: Recent = field(default_factory=lambda: Recent(2_048))
    _next_asked: int = 0

    # What the feed brings.

    def take(self, event: Event, feed: Feed, now_ms: float) -> None:
        """One event of the feed."""
        if isinstance(event, Batch):
            self._connected()
            self._take_batch(event, feed, now_ms)
        elif isinstance(event, BatchV1):
            self._connected()
            for symbol_id, price, volume in event.entries.tolist():
                self.row(feed.symbol(symbol_id)).take(price, volume)
        elif isinstance(event, Control):
            self._take_control(event, feed, now_ms)

    def _take_batch(self, batch: Batch, feed: Feed, now_ms: float) -> None:
        columns = ("symbol_id", "price", "flags")
        for symbol_id, price, flags in zip(*(batch.trades[name].tolist() for name in columns), strict=True):
            row = self.row(feed.symbol(symbol_id))
            if flags & (REPAIRED | LATE):
                row.trades += not batch.snapshot  # it counts, and is not the newest price
            else:
                row.take(price, 0.0 if batch.snapshot else 1.0)
        for found in batch.quotes:
            row = self.row(feed.symbol(int(found["symbol_id"])))
            row.bid, row.ask = float(found["bid"]), float(found["ask"])
        for found in batch.enigma:
            row = self.row(feed.symbol(int(found["symbol_id"])))
            row.take_levels(*(float(found[name]) for name in ("level", "ath", "atl")))
        us = batch.latency.engine_to_client_us
        if us is not None:
            self._arrivals.add(us, now_ms / 1e3)

    def _take_control(self, event: Control, feed: Feed, now_ms: float) -> None:
        if event.type == "disconnected":
            self.is_connected, self.reason, self.lost_ms = False, str(event.message["reason"]), now_ms
            return
        self._connected()
        if event.type == "subscribed":
            for symbol in feed.symbols.values():
                self.row(symbol)
        elif event.type == "enigma":  # version 1 of the feed
            data = event.message["data"]
            if data["symbol"] in self._by_name:
                self._by_name[data["symbol"]].take_levels(data["level"], data["ath"], data["atl"])

    def _connected(self) -> None:
        self.is_connected, self.reason = True, ""

    def row(self, symbol: FeedSymbol) -> SymbolFacts:
        """The facts of a symbol."""
        found = self.rows.get(symbol.id)
        if found is None or found.symbol is not symbol:
            found = found or SymbolFacts(symbol)
            found.symbol = symbol
            self.rows[symbol.id] = self._by_name[symbol.symbol] = found
        return found

    # What the engine says of itself.

    def ask_next(self, most: int) -> list[str]:
        """Symbols to ask the engine about this time, each in its turn; [""] while none is known."""
        names = list(self._by_name)
        if len(names) <= most:
            return names or [""]
        start, self._next_asked = self._next_asked, (self._next_asked + most) % len(names)
        return [names[(start + place) % len(names)] for place in range(most)]

    def take_stats(self, stats: Stats, sent_ms: float, received_ms: float) -> None:
        """An answer of /api/v1/stats, and when it was asked for and had."""
        self._clock.add(sent_ms, stats["asked"], stats["now"], received_ms)
        symbol = stats.get("symbol")
        row = self._by_name.get(symbol["symbol"]) if symbol else None
        if symbol and row is not None:
            row.complete_id, row.newest_id = symbol["complete_through_id"], symbol["newest_id"]
            row.complete_ms = symbol["complete_through"]
        self.stats_ms, self.trouble = received_ms, ""
        if self.stats is None or stats["timestamp"] > self.stats["timestamp"]:
            self.told = between(self.stats, stats)
            self.stats = stats

    def stats_failed(self, reason: str) -> None:
        """The engine did not answer."""
        self.trouble = reason

    def refresh(self, seconds: float) -> None:
        """Bring all rates up to date after `seconds`."""
        for row in self.rows.values():
            row.refresh(seconds)

    # What is shown.

    def is_stale(self, now_ms: float) -> bool:
        """Whether the engine's own words are too old to count."""
        return self.stats is None or now_ms - self.stats_ms > STALE_S * 1e3

    def engine_to_here(self, now_ms: float) -> Hop:
        """From the engine's last send until this program's socket had it, corrected by the clocks' offset."""
        p50, p99 = self._arrivals.quantiles((0.5, 0.99), now_ms / 1e3)
        bound = self._clock.now
        if bound is None:
            return Hop(None, None)
        offset_us, error_us = 1e3 * bound[0], 1e3 * bound[1]
        return Hop(moved(p50, offset_us), moved(p99, offset_us), error_us)

    def busiest(self, rows_max: int) -> list[SymbolFacts]:
        """Those that traded most so far, in a stable order."""
        found = sorted(self.rows.values(), key=lambda row: -row.trades)[:rows_max]
        return sorted(found, key=lambda row: row.symbol.id)

    def as_json(self, now_ms: float) -> dict[str, Any]:
        """Everything under the names of docs/cli.md. What is not known is null."""
        stale = self.is_stale(now_ms)
        stats, told = (None, None) if stale else (self.stats, self.told)
        lines = stats["lines"] if stats is not None else {}
        return {
            "type": "facts",
            "time": round(now_ms),
            "connected": self.is_connected,
            "reason": self.reason or (self.trouble if stale else ""),
            "status": stats["status"] if stats is not None else None,
            "messages_per_s": told.messages if told else None,
            "duplicates_per_s": told.duplicates if told else None,
            "exchange_to_engine_us": _hop(told.exchange_to_engine if told else None),
            "inside_engine_us": _hop(told.inside_engine if told else None),
            "engine_to_here_us": _hop(self.engine_to_here(now_ms)),
            "lines": {name: line_state(lines[name]) for name in LINES if name in lines},
            "line_a_first": first_share(lines),
            "gaps": stats["gaps"] if stats is not None else None,
            "symbols": [_symbol(row, stale) for row in self._known()],
        }

    def _known(self) -> Iterable[SymbolFacts]:
        return sorted(self.rows.values(), key=lambda row: row.symbol.id)


def _hop(hop: Hop | None) -> dict[str, float | bool | None] | None:
    if hop is None:
        return None
    return {"p50": hop.p50_us, "p99": hop.p99_us, "error": hop.error_us, "hidden": hop.hidden}


def _symbol(row: SymbolFacts, stale: bool) -> dict[str, Any]:
    return {
        "symbol": row.symbol.symbol,
        "price": row.price or None,
        "bid": row.bid,
        "ask": row.ask,
        "trades": row.trades,
        "trades_per_s": round(row.rate, 3),
        "enigma": row.level,
        "ath": row.ath,
        "atl": row.atl,
        "fib_levels": row.fib or None,
        "complete_through_id": None if stale else row.complete_id,
        "complete_through": None if stale else row.complete_ms,
        "newer_waiting": None if stale else row.waiting,
    }
