"""Bars for REST and UDF: of memory, store and the exchange's klines, as one window at one moment.

A window ends before `to`, and begins where the earlier of two begins: the first bar at or after `from`, and
`countback` bars before its end. So neither is cut (udf.md section 5), and REST is the case of countback 0. Of
more than the limit the newest are answered.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tradeback.api.bar_cache import NEVER_S, SERIES_BARS_MAX, BarCache, Held, Version
from tradeback.api.bar_text import Columns, Flags, Form, Window, chunks_of, cut
from tradeback.api.context import ServingContext
from tradeback.api.errors import ApiError
from tradeback.api.shapes import DerivedSeries
from tradeback.derive.bars import from_rows, is_complete, is_whole
from tradeback.derive.lacking import Span, lacking
from tradeback.derive.layout import RESOLUTION_S, Bars
from tradeback.model.errors import TradebackError
from tradeback.model.symbols import Symbol

PREFETCH_BARS = 500
NEAR_SLOTS = 2_000
"""A window that ends so far before what is held is read apart, and not everything between."""
WAIT_S = 5.0
"""How long an answer waits for the exchange's klines; they go on coming behind it."""
LOOK_AGAIN_S = 2.0
LIVE_S = 60
"""What is younger than this is the business of lines and repair, and not of klines."""
ROUNDS_MAX = 8
"""Readings that may each be overtaken by a bar that closes."""
FILLS_MAX = 4
"""How often one answer may turn to the exchange: what comes may show that more is lacking."""
INLINE_BARS = 600
"""So many bars are written on the loop's thread, in a fraction of a millisecond; more by another thread."""

_log = logging.getLogger("tradeback.api")


@dataclass(frozen=True, slots=True)
class Ask:
    """Which bars: unix seconds, `to_s` exclusive. The exchange is asked for what lies before all stored
    bars only if `from_s` or `countback` reaches there and `deep` is set."""

    symbol: Symbol
    resolution: int
    from_s: int
    to_s: int
    limit: int
    countback: int = 0
    deep: bool = True

    @property
    def slot_s(self) -> int:
        """Seconds of a bar."""
        return RESOLUTION_S[self.resolution]


@dataclass(frozen=True, slots=True)
class _Now:
    version: Version
    running: Bars
    edge_s: int
    """Where the running bars begin."""


class BarReader:
    """Answers for bars over one context; REST and UDF share it. Loop thread."""

    def __init__(self, context: ServingContext) -> None:
        self._context = context
        self.cache = BarCache()
        self.reads = self.answered = 0
        """Readings of the series store, and windows answered."""

    async def window(self, ask: Ask, *, wait_s: float = WAIT_S) -> Window:
        """The window. ApiError 503 before the engine is up, and when bars cannot be read.

        What is lacking is asked of the exchange, for which the answer waits up to `wait_s`; `settled` tells
        whether all came.
        """
        self.answered += 1
        try:
            found = await self._window(ask)
            if self._context.klines is None:
                return found
            until_s = time.monotonic() + wait_s
            for _ in range(FILLS_MAX):
                if found.settled or time.monotonic() < self._held(ask).look_again_s:
                    break
                generation = self._context.klines.generation(ask.symbol.id, ask.resolution)
                settled = await self._fill(ask, found, max(0.0, until_s - time.monotonic()))
                if self._context.klines.generation(ask.symbol.id, ask.resolution) == generation:
                    found.settled = settled
                    break
                # Klines have come: they may show what else is lacking.
                found = await self._window(ask)
            return found
        except TradebackError as error:
            _log.warning("bars of %s cannot be read: %s", ask.symbol.symbol, error)
            raise ApiError(503, "not_ready", "bars cannot be read now; try again in a moment") from error

    async def text(self, window: Window, form: Form) -> Columns:
        """The window in a form; what takes long is written by a thread."""
        if window.cost(form) <= INLINE_BARS:
            return window.text(form)
        return await asyncio.to_thread(window.text, form)

    # Reading.

    async def _window(self, ask: Ask) -> Window:
        held = self._held(ask)
        for _ in range(ROUNDS_MAX):
            now = self._look(ask, held)
            reaches_s = now.edge_s if held.lo_s == NEVER_S else held.lo_s
            if reaches_s == NEVER_S or ask.to_s < reaches_s - NEAR_SLOTS * ask.slot_s:
                break
            if held.edge_s == now.edge_s and _reaches(ask, held):
                return self._compose(ask, held, now)
            async with held.lock:
                await self._extend(ask, held)
            held.trim(SERIES_BARS_MAX)
            self.cache.trim()
        return await self._apart(ask)

    def _held(self, ask: Ask) -> Held:
        return self.cache.of(ask.symbol.id, ask.resolution)

    def _look(self, ask: Ask, held: Held) -> _Now:
        """The running bars; and what is held is dropped if it is not true any more."""
        derived = self._derived()
        series = ask.symbol.id, ask.resolution
        running = _still_running(derived.bars_open(*series))
        counters = derived.counters
        klines, gaps = self._context.klines, self._context.gaps
        version = (
            klines.generation(*series) if klines is not None else 0,
            counters["late"],
            counters["seeds"],
            gaps.ledger.fills if gaps is not None else 0,
        )
        if not held.is_right(version):
            held.reset()
        held.version = version
        edge_s = int(running["slot_us"][0]) // 1_000_000 if len(running) else NEVER_S
        if held.edge_s > edge_s:  # nothing is held yet, or time went back
            held.reset()
            held.version, held.lo_s, held.edge_s = version, edge_s, edge_s
        return _Now(version, running, edge_s)

    async def _extend(self, ask: Ask, held: Held) -> None:
        """Read what is missing on the right or on the left. What was overtaken meanwhile is forgotten."""
        now = self._look(ask, held)
        before = held.serial, held.version, held.lo_s, held.edge_s
        if held.edge_s < now.edge_s:
            rows, complete = await self._read(ask, held.edge_s, now.edge_s, SERIES_BARS_MAX)
            if (held.serial, held.version, held.lo_s, held.edge_s) != before:
                return
            if len(rows) < SERIES_BARS_MAX:
                held.append(rows, complete, now.edge_s)
            else:
                held.reset()
        elif not _reaches(ask, held):
            wanted = min(_missing(ask, held) + PREFETCH_BARS, SERIES_BARS_MAX)
            rows, complete = await self._read(ask, 0, held.lo_s, wanted)
            if (held.serial, held.version, held.lo_s, held.edge_s) != before:
                return
            lo_s = int(rows["slot_us"][0]) // 1_000_000 if len(rows) >= wanted else 0
            held.prepend(rows, complete, lo_s)

    async def _read(self, ask: Ask, from_s: int, to_s: int, limit: int) -> tuple[Bars, Flags]:
        """The newest bars of [from_s, to_s) from memory and store."""
        series = self._context.series
        if series is None:
            raise starting()
        self.reads += 1
        ledger = self._context.gaps.ledger if self._context.gaps is not None else None
        fills = ledger.fills if ledger is not None else 0
        rows, complete = await series.bars(ask.symbol.id, ask.resolution, from_s, to_s, limit, newest=True)
        if ledger is not None and ledger.fills == fills:
            # The ledger proves more than the neighbours among the bars do: where a bar begins with klines,
            # and at the edges of the answer. Not if trades came meanwhile that these bars may lack.
            proved = ledger.proved(ask.symbol.id, rows["first_id"], rows["last_id"])
            complete = complete | is_whole(rows) & proved
        return rows, complete

    async def _apart(self, ask: Ask) -> Window:
        """A window far from what is held: read for this answer alone."""
        slots = max(0, ask.to_s - ask.from_s) // ask.slot_s + 1
        rows, complete = await self._read(ask, 0, ask.to_s, min(ask.limit, max(ask.countback, slots)) + 1)
        traded = rows["trade_count"] > 0
        rows, complete = rows[traded], complete[traded]
        first = int(np.searchsorted(rows["slot_us"], ask.from_s * 1_000_000))
        begin = max(min(first, len(rows) - ask.countback), len(rows) - ask.limit, 0)
        window = Window(
            cut(chunks_of(rows, complete), begin, len(rows)), rows[:0], complete[:0], Held(0).serial
        )
        window.previous_s = int(rows["slot_us"][begin - 1]) // 1_000_000 if begin else None
        window.settled = self._context.klines is None
        return window

    def _compose(self, ask: Ask, held: Held, now: _Now) -> Window:
        """Cut the window out of what is held, and put the running bars behind it. Without waiting."""
        slots_s = now.running["slot_us"] // 1_000_000
        mine = (now.running["trade_count"] > 0) & (slots_s < ask.to_s)
        running, complete, slots_s = now.running[mine], self._complete(ask, held, now)[mine], slots_s[mine]
        closed = held.place(ask.to_s)
        count = closed + len(running)
        first = held.place(ask.from_s) + int((slots_s < ask.from_s).sum())
        begin = max(min(first, count - ask.countback), count - ask.limit, 0)
        skipped = max(0, begin - closed)
        pieces = cut(held.chunks, begin, closed)
        window = Window(pieces, running[skipped:], complete[skipped:], held.serial)
        window.following = held.row(closed) if closed < held.count else now.running[len(running) :][:1]
        if begin > closed:
            window.previous_s = int(slots_s[skipped - 1])
        elif begin:
            window.previous_s = held.slot_s(begin - 1)
        window.settled = self._context.klines is None or needs_s(ask, window) >= held.settled_s
        return window

    def _complete(self, ask: Ask, held: Held, now: _Now) -> Flags:
        """Of each running bar whether it is complete: its neighbour on the left may be closed.

        The newest never is, so there are one or none to be judged.
        """
        running = now.running
        complete = np.zeros(len(running), bool)
        if len(running) > 1:
            before = from_rows(held.last)
            older, newer = from_rows(running)
            complete[0] = is_complete(older, before[0] if before else None, newer)
            if not complete[0] and self._context.gaps is not None:
                first, ledger = running[:1], self._context.gaps.ledger
                proved = ledger.proved(ask.symbol.id, first["first_id"], first["last_id"])
                complete[:1] = is_whole(first) & proved
        return complete

    # The exchange.

    async def _fill(self, ask: Ask, window: Window, wait_s: float) -> bool:
        """Ask the exchange for what the window lacks; True when nothing more is to be had."""
        klines, held = self._context.klines, self._held(ask)
        assert klines is not None
        from_s = needs_s(ask, window)
        to_s = min(ask.to_s, self._newest_s() - LIVE_S, held.edge_s)
        rows, complete = window.rows(), window.complete()
        if window.following is not None:
            # Linked to the last bar of the window it proves that nothing lies between them.
            rows = np.concatenate([rows, window.following])
            complete = np.concatenate([complete, np.ones(len(window.following), bool)])
        spans = lacking(rows, complete, ask.slot_s, from_s, to_s)
        if not spans or await klines.fill(
            ask.symbol, ask.resolution, spans, _wanted(ask, window, spans), wait_s
        ):
            held.settled_s = min(held.settled_s, from_s)
            return True
        held.look_again_s = time.monotonic() + LOOK_AGAIN_S
        return False

    def _newest_s(self) -> int:
        """The exchange's time as of the newest trade of any symbol; this machine's before the first."""
        newest_us = self._derived().newest_us() or self._context.clock.wall_ns() // 1_000
        return newest_us // 1_000_000

    def _derived(self) -> DerivedSeries:
        if self._context.derived is None or self._context.series is None:
            raise starting()
        return self._context.derived


def _still_running(rows: Bars) -> Bars:
    """The bars that only memory knows: not the older one of two that lacks trades before the newer one.

    Its series was not followed for a while, or its gap is still open: the store may hold the exchange's own.
    """
    if len(rows) > 1 and not (is_whole(rows)[0] and rows["last_id"][0] + 1 == rows["first_id"][1]):
        return rows[1:]
    return rows


def _reaches(ask: Ask, held: Held) -> bool:
    """Whether what is held goes back as far as is asked for, and by one bar where the window may be empty."""
    if not held.lo_s:
        return True
    before = held.place(ask.to_s)
    if ask.from_s < held.lo_s and before < ask.limit:
        return False
    return before >= min(max(ask.countback, 1), ask.limit)


def _missing(ask: Ask, held: Held) -> int:
    """How many bars on the left of what is held may be needed, at the most."""
    have = held.place(ask.to_s)
    behind = max(0, held.lo_s - ask.to_s) // ask.slot_s + 1
    slots = max(0, held.lo_s - ask.from_s) // ask.slot_s + 1
    return min(max(slots, ask.countback - have + behind), max(1, ask.limit - have) + behind)


def needs_s(ask: Ask, window: Window) -> int:
    """From where on nothing may be lacking for the window to be right."""
    first_s = window.first_s
    if window.count >= ask.limit:
        return first_s
    if not ask.deep:
        return ask.from_s or first_s
    if window.count < ask.countback or (not window.count and window.previous_s is None):
        return 0
    return min(ask.from_s, first_s)


def _wanted(ask: Ask, window: Window, spans: Sequence[Span]) -> int:
    """How many bars the exchange may have to bring: of a span without beginning, what fills the window."""
    target = ask.limit if ask.from_s < window.first_s else ask.countback
    more = max(1, target - window.count)
    return sum(
        min((span.to_s - span.from_s) // ask.slot_s, more if not span.from_s else ask.limit) for span in spans
    )


def starting() -> ApiError:
    """503: what is asked for is not there yet."""
    return ApiError(
        503, "not_ready", "the engine is still starting, see /health/ready; try again in a moment"
    )
