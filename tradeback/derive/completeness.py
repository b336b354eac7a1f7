"""The completeness ledger: which ids of every symbol's trades and aggregates are on the tape. Pure.

A reader of the tape hands it every record in order (`feed`), and tells it the time now and then (`sweep`).
Trade and aggregate ids of a symbol rise by one (binance.md section 5), so a jump shows that ids are
missing: *suspected* for a grace time in which another line may bring them, then an open gap. Aggregates
name the trades they merged, so one whose last trade id lies beyond the highest known trade shows missing
trades even when no trade comes any more.

A record with the flag STAND_IN carries the volume of several trades and no exact id: the ids it covers
stay missing (single trades are not there), but nobody needs to stand in for them again, and REST is not
asked for them, because their volume would be counted twice.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tradeback.derive.completeness_feed import Key, Seen
from tradeback.derive.completeness_gap import (
    AGGS,
    OPEN,
    REPAIRED,
    TRADES,
    UNREPAIRABLE,
    Gap,
    StreamState,
    Suspect,
    gap_rows,
)
from tradeback.derive.completeness_kernel import has_tails, ripe_aggregates
from tradeback.derive.completeness_ranges import IdRanges, Range, minus
from tradeback.derive.completeness_stream import Stream
from tradeback.model.record import Rows


class Completeness(Seen):
    """The ledger of all symbols. One thread's business (the loop's)."""

    def __init__(self, gap_after_ns: int, symbols_max: int = 512) -> None:
        super().__init__(symbols_max)
        self._grace_ns = gap_after_ns

    # Judging.

    def sweep(self, now_ns: int) -> Rows:
        """Open what has been missing for the grace time, close what has come; returns GAP records for the
        tape, one for each change."""
        self._sweep_tails(now_ns)
        for key, stream in self._streams.items():
            if stream.suspects:
                self._open_overdue(key, stream, now_ns)
        for key in self._stale:
            self._recount(key, now_ns)
        self._stale.clear()
        events, self._events = self._events, []
        return gap_rows(events)

    def _open_overdue(self, key: Key, stream: Stream, now_ns: int) -> None:
        kept = []
        for suspect in stream.suspects:
            missing = stream.holes.within(suspect.first, suspect.last)
            if missing and suspect.since_ns + self._grace_ns > now_ns:
                kept.append(suspect)
            elif missing:
                self._open(key, stream, suspect, missing, now_ns)
        if len(kept) < len(stream.suspects):
            self._dirty[key[1], key[0]] = True
        stream.suspects = kept

    def _open(self, key: Key, stream: Stream, suspect: Suspect, missing: list[Range], now_ns: int) -> None:
        count = sum(last - first + 1 for first, last in missing)
        gap = Gap(
            *key, missing[0][0], missing[-1][1], OPEN, count, now_ns, 0,
            suspect.before_us, suspect.after_us, suspect.sequence,
        )  # fmt: skip
        stream.gaps[gap.name] = gap
        self.opened += 1
        if minus(missing, stream.covered):
            self._note(gap)
        else:
            self._close(key, stream, gap, UNREPAIRABLE, now_ns)

    def _sweep_tails(self, now_ns: int) -> None:
        """Trades that only aggregates know of."""
        if not has_tails(self._words, now_ns - self._grace_ns):
            return
        top, mark = self._top[TRADES], self._mark
        for symbol_id in np.flatnonzero((mark[0] > top) & (mark[1] + self._grace_ns <= now_ns)).tolist():
            self._open_tail(symbol_id, int(mark[0, symbol_id]), int(mark[1, symbol_id]))
        caught_up = np.flatnonzero((mark[0] <= top) & (self._reach[0] > top))
        mark[0, caught_up], mark[1, caught_up] = self._reach[0, caught_up], now_ns

    def _open_tail(self, symbol_id: int, reach: int, since_ns: int) -> None:
        key = symbol_id, TRADES
        stream = self._stream(key)
        top = int(self._top[TRADES, symbol_id])
        if any(gap.last_id == top and gap.state == OPEN for gap in stream.gaps.values()):
            return  # one after the other: else a dead line makes ten gaps a second
        if self._from[TRADES, symbol_id] < 0:
            first = int(self._reach[1, symbol_id])
            self._from[TRADES, symbol_id], top = first, first - 1
        before_us = int(self._top_us[TRADES, symbol_id])
        suspect = Suspect(top + 1, reach, since_ns, before_us, int(self._top_us[AGGS, symbol_id]), 0)
        self._suspect(key, suspect)
        self._top[TRADES, symbol_id] = reach
        self._dirty[TRADES, symbol_id] = True

    def _recount(self, key: Key, now_ns: int) -> None:
        stream = self._streams[key]
        for gap in list(stream.gaps.values()):
            missing = stream.holes.count(*gap.name)
            if missing != gap.missing:
                gap.missing = missing
                self._dirty[key[1], key[0]] = True
            if not missing and gap.state != REPAIRED:
                self._close(key, stream, gap, REPAIRED, now_ns)

    def _close(self, key: Key, stream: Stream, gap: Gap, state: int, now_ns: int) -> None:
        gap.state, gap.closed_ns = state, max(now_ns, gap.noted_ns + 1)
        self.repaired += state == REPAIRED
        self.unrepairable += state == UNREPAIRABLE
        self._note(gap)
        if state == UNREPAIRABLE:
            self._closed += stream.forget_old()
            if stream.forgotten_below > self._from[key[1], key[0]]:
                self._from[key[1], key[0]] = stream.forgotten_below

    def _note(self, gap: Gap) -> None:
        self._events.append(gap)
        self._dirty[gap.stream, gap.symbol_id] = True
        self.version += 1

    def give_up(self, gap: Gap, now_ns: int) -> None:
        """What is still missing of an open gap will not come."""
        key = gap.symbol_id, gap.stream
        stream = self._streams[key]
        gap.missing = stream.holes.count(*gap.name)
        if gap.state == OPEN:
            self._close(key, stream, gap, UNREPAIRABLE if gap.missing else REPAIRED, now_ns)

    # Asking.

    def is_calm(self) -> bool:
        """Whether nothing is suspected and no gap is open, by what has been fed."""
        return all(stream.is_calm() for stream in self._streams.values())

    def gaps(self, state: int = OPEN) -> list[Gap]:
        """All gaps in memory that are in this state: every open one, and the newest unrepairable ones."""
        return [
            gap for stream in self._streams.values() for gap in stream.gaps.values() if gap.state == state
        ]

    def wanted(self, symbol_id: int, stream: int, first: int, last: int) -> list[Range]:
        """Ids of first..last that are missing in open gaps, and for which nothing stands in."""
        held = self._streams.get((symbol_id, stream))
        if held is None:
            return []
        found = IdRanges()
        for gap in held.gaps.values():
            if gap.state == OPEN and gap.first_id <= last and first <= gap.last_id:
                for low, high in held.holes.within(max(first, gap.first_id), min(last, gap.last_id)):
                    found.add(low, high)
        return minus(found.pieces(), held.covered)

    def complete_through(self, symbol_id: int, stream: int = TRADES) -> tuple[int, int] | None:
        """(id N, exchange time us): every id from the first one on up to N is on the tape, or settled as
        unrepairable. None before the first; N may be one below it."""
        if symbol_id >= self._top.shape[1] or self._from[stream, symbol_id] < 0:
            return None
        reached = int(self._top[stream, symbol_id]), int(self._top_us[stream, symbol_id])
        held = self._streams.get((symbol_id, stream))
        if held is None:
            return reached
        for first, before_us in held.unsettled():
            if first <= reached[0]:
                reached = first - 1, before_us
        return reached

    def span(self, symbol_id: int, stream: int = TRADES) -> Range | None:
        """Lowest id of the claim and highest id known to exist; None before the first."""
        if symbol_id >= self._top.shape[1] or self._from[stream, symbol_id] < 0:
            return None
        return int(self._from[stream, symbol_id]), int(self._top[stream, symbol_id])

    def holds(self, symbol_id: int, identifier: int) -> bool:
        """True when this very trade is on the tape for sure."""
        span = self.span(symbol_id)
        if span is None or not span[0] <= identifier <= span[1]:
            return False
        held = self._streams.get((symbol_id, TRADES))
        return held is None or identifier not in held.holes

    def proved(
        self, symbol_id: int, first_ids: NDArray[np.int64], last_ids: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """For each range of trades: are they, the one before and the one behind it all there, or stood in
        for? (Then what was made of exactly these trades lacks none.)"""
        span = self.span(symbol_id)
        if span is None:
            return np.zeros(len(first_ids), np.bool_)
        inside: NDArray[np.bool_] = (first_ids > span[0]) & (last_ids < span[1]) & (first_ids <= last_ids)
        held = self._streams.get((symbol_id, TRADES))
        holes = minus(held.holes.pieces(), held.covered) if held is not None else []
        if holes:
            firsts, lasts = np.array(holes, np.int64).T
            low = np.where(inside, first_ids - 1, 0)
            high = np.where(inside, last_ids + 1, 0)
            inside &= np.searchsorted(lasts, low) >= np.searchsorted(firsts, high, "right")
        return inside

    def ripe(self, rows: Rows, limit_ns: int) -> tuple[int, int, NDArray[np.int64]]:
        """Of records in the order of the tape, contiguous in memory: how many come before the first that was
        received after `limit_ns`, how many of those are aggregates, and the indexes of the aggregates whose
        trades are perhaps not all there: ask `fate`."""
        return ripe_aggregates(self._words, self._holed, rows, limit_ns)

    def fate(self, symbol_id: int, first: int, last: int) -> list[Range] | None:
        """What became of trades first..last: the ids that will never come and for which nothing stands in
        yet ([]: none is lacking), or None while some may still come."""
        span = self.span(symbol_id)
        if span is None or last > span[1]:
            return None
        held = self._streams.get((symbol_id, TRADES))
        if held is None:
            return []
        missing = minus(held.holes.within(max(first, span[0]), last), held.covered)
        return missing if held.are_settled(missing) else None

    # Keeping.

    def changes(self) -> tuple[list[StreamState], list[Gap]]:
        """What has changed since the last call: streams and gaps, for a store."""
        states: list[StreamState] = []
        gaps, self._closed = self._closed, []
        for number, symbol_id in zip(*(axis.tolist() for axis in np.nonzero(self._dirty)), strict=True):
            states.append(self._state((symbol_id, number)))
            held = self._streams.get((symbol_id, number))
            if held is not None:
                gaps.extend(replace(gap) for gap in held.gaps.values())
        self._dirty[:] = False
        return states, gaps

    def _state(self, key: Key) -> StreamState:
        held = self._streams.get(key)
        holes, covered, suspects = held.kept() if held is not None else ((), (), ())
        symbol_id, stream = key
        lowest, top = int(self._from[stream, symbol_id]), int(self._top[stream, symbol_id])
        return StreamState(
            symbol_id, stream, lowest, top, int(self._top_us[stream, symbol_id]), holes, covered, suspects
        )

    def restore(self, states: Iterable[StreamState], gaps: Iterable[Gap]) -> None:
        """Become what was stored. For a ledger that has seen no record."""
        for state in states:
            self._fit(state.symbol_id)
            key = state.symbol_id, state.stream
            at = state.stream, state.symbol_id
            self._from[at], self._top[at], self._top_us[at] = state.from_id, state.top_id, state.top_us
            if state.holes or state.suspects:
                self._streams[key] = Stream.of(state)
                self._holed[at] = bool(state.holes)
        for gap in gaps:
            if gap.state != REPAIRED:
                self._stream((gap.symbol_id, gap.stream)).gaps[gap.name] = gap
