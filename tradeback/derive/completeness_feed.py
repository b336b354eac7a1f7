"""From records of the tape to what is known of ids: the half of the ledger that takes records in. Pure.

Ids that simply go on are a kernel's work. Where they do not, a run of ids is taken by Python and the kernel
goes on behind it. Where that happens more than a few times in a batch (a start, a replay), the rest of it is
taken in arrays, and only symbols whose ids do not go on cost Python, per run of ids and not per record.
"""

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tradeback.derive.completeness_gap import (
    AGGS,
    OPEN,
    REPAIRED,
    STREAM_KINDS,
    TRADES,
    UNREPAIRABLE,
    Gap,
    Suspect,
)
from tradeback.derive.completeness_kernel import go_on, run_length, words_of
from tradeback.derive.completeness_stream import Stream
from tradeback.model.record import AGG, GAP, STAND_IN, TRADE, UNWATCHED, Rows

NONE: Final = -1
"""No id yet: ids begin with 0."""
Key = tuple[int, int]
"""Symbol id and stream."""
ODD_RUNS_MAX = 16
"""With more of them in a batch the rest is taken in arrays, whose cost hardly rises with their number."""


class Seen:
    """Ids on the tape, jumped over, and covered, of every stream. `Completeness` judges them."""

    def __init__(self, symbols_max: int = 512) -> None:
        self._streams: dict[Key, Stream] = {}
        """Streams in which something was ever amiss."""
        self._events: list[Gap] = []
        """Gaps whose state has changed since the last sweep."""
        self._stale: set[Key] = set()
        """Streams with gaps that have to be counted anew."""
        self._closed: list[Gap] = []
        """Closed gaps that nobody has stored yet."""
        self.version = 0
        """Rises when a gap opens or closes."""
        self.fills = 0
        """Rises whenever a missing id comes."""
        self.doubles = 0
        """Trades and aggregates that were on the tape already."""
        self.opened = self.repaired = self.unrepairable = 0
        self._allocate(max(2, symbols_max))

    def _allocate(self, size: int) -> None:
        def larger(name: str, fill: int, dtype: Any = np.int64) -> Any:
            new = np.full((2, size), fill, dtype)
            old = getattr(self, name, None)
            if old is not None:
                new[:, : old.shape[1]] = old
            return new

        self._from: NDArray[np.int64] = larger("_from", NONE)
        self._top: NDArray[np.int64] = larger("_top", NONE)
        self._top_us: NDArray[np.int64] = larger("_top_us", 0)
        self._holed: NDArray[np.bool_] = larger("_holed", 0, np.bool_)
        self._dirty: NDArray[np.bool_] = larger("_dirty", 0, np.bool_)
        # What aggregates say of trades: [0] the highest trade id they name, [1] the lowest while no trade
        # has come; and [0] what the former was when it ran ahead of the trades, [1] since when (ns).
        self._reach: NDArray[np.int64] = larger("_reach", NONE)
        self._mark: NDArray[np.int64] = larger("_mark", NONE)
        self._anew: NDArray[np.bool_] = larger("_anew", 0, np.bool_)
        """The next record begins another claim; gaps of the one before stay what they are."""
        self._words = words_of([self._from, self._top, self._top_us, self._dirty, self._reach, self._mark])

    def _fit(self, symbol_id: int) -> None:
        if symbol_id >= self._top.shape[1]:
            self._allocate(max(2 * self._top.shape[1], symbol_id + 1))

    # Feeding.

    def feed(self, rows: Rows, first_sequence: int) -> None:
        """Take the next records of the tape, contiguous in memory; `rows[0]` stands at `first_sequence`."""
        taken = go_on(self._words, rows)
        for _ in range(ODD_RUNS_MAX):
            if taken == len(rows):
                return
            odd = self._take_odd(rows[taken:], first_sequence + taken)
            if not odd:
                break
            taken += odd
            taken += go_on(self._words, rows[taken:])
        if taken < len(rows):
            self._feed_rest(rows[taken:], first_sequence + taken)

    def _take_odd(self, rows: Rows, sequence: int) -> int:
        """Take the first record, and those behind it whose ids go on from there; how many. 0 for an end of
        a watch."""
        row = rows[0]
        kind, symbol_id = int(row["kind"]), int(row["symbol_id"])
        if kind == GAP:
            self._apply_gap(row, sequence)
            return 1
        if kind not in STREAM_KINDS:
            return 0
        if kind == TRADE and int(row["flags"]) & STAND_IN:
            self._apply_stand_in(row, sequence)
            return 1
        self._fit(symbol_id)
        count, key = run_length(rows), (symbol_id, STREAM_KINDS.index(kind))
        last, times = rows[count - 1], (int(row["recv_ns"]), sequence)
        ids, moments = ((int(row[name]), int(last[name])) for name in ("id", "exchange_us"))
        self._take_run(key, *ids, *moments, *times)
        self._dirty[key[1], symbol_id] = True
        if kind == AGG:
            first = np.zeros(1, np.intp)
            self._note_reach(rows, np.arange(count), first, np.array([symbol_id], np.intp))
        return count

    def _feed_rest(self, rows: Rows, first_sequence: int) -> None:
        kinds = rows["kind"]
        cuts = np.flatnonzero(kinds == UNWATCHED).tolist()
        if cuts:
            # What stands before such a record belongs to another claim than what stands behind it.
            for begin, end in zip([-1, *cuts], [*cuts, len(rows)], strict=True):
                if begin >= 0:
                    self._begin_anew(int(rows["symbol_id"][begin]))
                self.feed(rows[begin + 1 : end], first_sequence + begin + 1)
            return
        standing = (kinds == TRADE) & ((rows["flags"] & STAND_IN) != 0)
        trades, aggs = (kinds == TRADE) & ~standing, kinds == AGG
        for stream, mask in ((TRADES, trades), (AGGS, aggs)):
            places = np.flatnonzero(mask)
            if len(places):
                self._feed_stream(rows, places, stream, first_sequence)
        for place in np.flatnonzero(standing | (kinds == GAP)).tolist():
            row = rows[place]
            if row["kind"] == GAP:
                self._apply_gap(row, first_sequence + place)
            else:
                self._apply_stand_in(row, first_sequence + place)

    def _feed_stream(self, rows: Rows, places: NDArray[np.intp], stream: int, first_sequence: int) -> None:
        symbols = rows["symbol_id"][places]
        order = np.argsort(symbols, kind="stable")
        symbols, places = symbols[order], places[order]
        ids = rows["id"][places]
        starts = np.flatnonzero(np.diff(symbols, prepend=np.uint16(0)))
        if not len(starts) or starts[0]:
            starts = np.concatenate([np.zeros(1, np.intp), starts])
        ends = np.concatenate([starts[1:], np.array([len(ids)], np.intp)])
        mine = symbols[starts].astype(np.intp)
        self._fit(int(mine[-1]))
        step = np.diff(ids, prepend=0)
        step[starts] = ids[starts] - self._top[stream, mine]
        odd = np.logical_or.reduceat(step != 1, starts) | (self._from[stream, mine] < 0)
        even = ~odd
        newest = ends[even] - 1
        self._top[stream, mine[even]] = ids[newest]
        self._top_us[stream, mine[even]] = rows["exchange_us"][places[newest]]
        self._dirty[stream, mine] = True
        for group in np.flatnonzero(odd).tolist():
            begin, end = int(starts[group]), int(ends[group])
            self._feed_odd(
                rows, places[begin:end], ids[begin:end], (int(mine[group]), stream), first_sequence
            )
        if stream == AGGS:
            self._note_reach(rows, places, starts, mine)

    def _feed_odd(
        self, rows: Rows, places: NDArray[np.intp], ids: NDArray[np.int64], key: Key, first_sequence: int
    ) -> None:
        """Records of one stream whose ids do not simply go on, cut into runs that do."""
        cuts = np.flatnonzero(np.diff(ids) != 1) + 1
        begins = np.concatenate([np.zeros(1, np.intp), cuts])
        lasts = np.concatenate([cuts, np.array([len(ids)], np.intp)]) - 1
        columns = (
            ids[begins], ids[lasts], rows["exchange_us"][places[begins]], rows["exchange_us"][places[lasts]],
            rows["recv_ns"][places[begins]], places[begins] + first_sequence,
        )  # fmt: skip
        for run in zip(*(column.tolist() for column in columns), strict=True):
            self._take_run(key, *run)

    def _take_run(
        self, key: Key, first: int, last: int, first_us: int, last_us: int, recv_ns: int, sequence: int
    ) -> None:
        """Ids first..last are on the tape."""
        symbol_id, stream = key
        lowest, top = int(self._from[stream, symbol_id]), int(self._top[stream, symbol_id])
        if (lowest < 0 or last < lowest) and self._is_hole(key, first, last):
            self._fill(key, first, last)  # of a claim that has ended
            return
        if lowest < 0:
            self._begin(key, first, last, last_us)
            return
        if first > top + 1:
            before_us = int(self._top_us[stream, symbol_id])
            self._suspect(key, Suspect(top + 1, first - 1, recv_ns, before_us, first_us, sequence))
        if last > top:
            self._top[stream, symbol_id], self._top_us[stream, symbol_id] = last, last_us
        if first < lowest:
            # A line that was behind: the claim begins earlier, and what lies between was jumped over.
            self._from[stream, symbol_id] = first
            self._suspect(key, Suspect(last + 1, lowest - 1, recv_ns, last_us, 0, sequence))
        low, high = max(first, lowest), min(last, top)
        if low <= high:
            self.doubles += high - low + 1 - self._fill(key, low, high)

    def _begin_anew(self, symbol_id: int) -> None:
        """Nobody asked for this symbol for a while: what was jumped over meanwhile is not missing."""
        self._fit(symbol_id)
        self._from[:, symbol_id] = self._top[:, symbol_id] = NONE
        self._top_us[:, symbol_id] = 0
        self._reach[:, symbol_id] = self._mark[:, symbol_id] = NONE
        self._anew[:, symbol_id] = self._dirty[:, symbol_id] = True
        self.version += 1

    def _begin(self, key: Key, first: int, last: int, last_us: int) -> None:
        symbol_id, stream = key
        if self._anew[stream, symbol_id]:
            self._anew[stream, symbol_id] = False
            self._stream(key).forgotten_below = first
        self._from[stream, symbol_id] = first
        self._top[stream, symbol_id], self._top_us[stream, symbol_id] = last, last_us

    def _suspect(self, key: Key, suspect: Suspect) -> None:
        if suspect.first <= suspect.last:
            stream = self._stream(key)
            stream.holes.add(suspect.first, suspect.last)
            stream.suspects.append(suspect)
            self._holed[key[1], key[0]] = True

    def _is_hole(self, key: Key, first: int, last: int) -> bool:
        stream = self._streams.get(key)
        return stream is not None and stream.holes.count(first, last) == last - first + 1

    def _fill(self, key: Key, first: int, last: int) -> int:
        """Ids came that were jumped over; returns how many were missing indeed."""
        stream = self._streams.get(key)
        if stream is None:
            return 0
        taken = stream.holes.take(first, last)
        stream.covered.take(first, last)
        self._holed[key[1], key[0]] = bool(stream.holes)
        if taken:
            self.fills += taken
            self._stale.add(key)
        return taken

    def _note_reach(
        self, rows: Rows, places: NDArray[np.intp], starts: NDArray[np.intp], mine: NDArray[np.intp]
    ) -> None:
        """Aggregates say which trades there are: remember where they run ahead."""
        lasts = np.maximum.reduceat(rows["ask_quantity"][places], starts).astype(np.int64)
        reach = np.maximum(self._reach[0, mine], lasts)
        self._reach[0, mine] = reach
        top = self._top[TRADES, mine]
        fresh = (self._mark[0, mine] <= top) & (reach > top)
        self._mark[0, mine[fresh]] = reach[fresh]
        recv_ns = np.minimum.reduceat(rows["recv_ns"][places], starts)
        self._mark[1, mine[fresh]] = recv_ns[fresh]
        unseen = (self._from[TRADES, mine] < 0) & (self._reach[1, mine] < 0)
        if unseen.any():
            firsts = np.minimum.reduceat(rows["ask"][places], starts).astype(np.int64)
            self._reach[1, mine[unseen]] = firsts[unseen]

    def _apply_stand_in(self, row: np.void, sequence: int) -> None:
        first, last, symbol_id = int(row["ask"]), int(row["id"]), int(row["symbol_id"])
        self._fit(symbol_id)
        key = symbol_id, TRADES
        stream, recv_ns, time_us = self._stream(key), int(row["recv_ns"]), int(row["exchange_us"])
        if self._from[TRADES, symbol_id] < 0:
            self._from[TRADES, symbol_id], self._top[TRADES, symbol_id] = first, first - 1
        top = int(self._top[TRADES, symbol_id])
        if last > top:
            before_us = int(self._top_us[TRADES, symbol_id])
            self._suspect(key, Suspect(top + 1, last, recv_ns, before_us, time_us, sequence))
            self._top[TRADES, symbol_id], self._top_us[TRADES, symbol_id] = last, time_us
        for low, high in stream.holes.within(first, last):
            stream.covered.add(low, high)
        self._dirty[TRADES, symbol_id] = True

    def _apply_gap(self, row: np.void, sequence: int) -> None:
        """A state that was noted: by this ledger a moment ago, or by an earlier run, in a replay."""
        symbol_id, state, noted_ns = int(row["symbol_id"]), int(row["quantity"]), int(row["recv_ns"])
        kind = int(row["ask_quantity"])
        if kind not in STREAM_KINDS or state not in (OPEN, REPAIRED, UNREPAIRABLE):
            return
        self._fit(symbol_id)
        key = symbol_id, STREAM_KINDS.index(kind)
        stream = self._stream(key)
        name = int(row["id"]), int(row["ask"])
        gap = stream.gaps.get(name)
        if gap is None:
            gap = Gap(
                *key, *name, state, int(row["price"]), noted_ns, 0, int(row["exchange_us"]), 0, sequence
            )
            if state == REPAIRED or gap.last_id < stream.forgotten_below:
                gap.closed_ns = noted_ns
                if state != OPEN:
                    self._closed.append(gap)
                return
            self._reinstate(key, stream, gap)
        elif noted_ns < gap.noted_ns:
            return
        gap.state = state
        if state != OPEN:
            gap.closed_ns = noted_ns
        if state == REPAIRED:
            # Everything that was said of it has come by: it need not be remembered any longer.
            del stream.gaps[name]
            self._closed.append(gap)
        self._dirty[key[1], symbol_id] = True
        self.version += 1

    def _reinstate(self, key: Key, stream: Stream, gap: Gap) -> None:
        """A gap that this run does not know, from a replay: its tail may be beyond what records show."""
        symbol_id, number = key
        stream.gaps[gap.name] = gap
        if self._anew[number, symbol_id] and self._from[number, symbol_id] < 0:
            # Of the claim that has ended, and no other has begun.
            if not stream.holes.touches(*gap.name):
                stream.holes.add(*gap.name)
            return
        if self._from[number, symbol_id] < 0:
            self._from[number, symbol_id], self._top[number, symbol_id] = gap.first_id, gap.first_id - 1
        lowest, top = int(self._from[number, symbol_id]), int(self._top[number, symbol_id])
        if gap.first_id < lowest:
            # Opened when only aggregates had come: the claim began there.
            self._from[number, symbol_id] = gap.first_id
            stream.holes.add(gap.first_id, min(gap.last_id, lowest - 1))
            self._holed[number, symbol_id] = True
            between = gap.last_id + 1, lowest - 1, gap.opened_ns, gap.before_us, 0, gap.sequence
            self._suspect(key, Suspect(*between))
        if gap.last_id > top:
            stream.holes.add(top + 1, gap.last_id)
            self._top[number, symbol_id] = gap.last_id
            self._holed[number, symbol_id] = True
        kept = []
        for suspect in stream.suspects:
            if suspect.first <= gap.last_id and gap.first_id <= suspect.last:
                gap.after_us, gap.sequence = suspect.after_us, suspect.sequence
                kept.append(replace(suspect, last=gap.first_id - 1))
                kept.append(replace(suspect, first=gap.last_id + 1))
            else:
                kept.append(suspect)
        stream.suspects = [suspect for suspect in kept if suspect.first <= suspect.last]
        self._stale.add(key)

    def _stream(self, key: Key) -> Stream:
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = Stream()
        return stream
