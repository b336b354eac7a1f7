"""Aggregates certify trades; where a trade never came, its aggregate stands in at its price.

Behind its own cursor, a grace time after the head of the tape: every aggTrade names the first and last
trade it merged. Trades of the range that will never come are made up for by one STAND_IN record: the
aggregate's price, the quantity that is missing to its own. Should a trade come after all, it is dropped
as seen.

With the completeness ledger a stand-in is the last resort: an aggregate whose trades are suspected or in
an open gap waits until repair has brought them or given them up, so that no volume counts twice. Without
one, whatever has not come after the grace time is stood in for.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import numpy as np

from tradeback.derive.completeness import Completeness
from tradeback.derive.completeness_gap import OPEN, TRADES, UNREPAIRABLE, Gap
from tradeback.derive.completeness_ranges import Range
from tradeback.exchange.intake import Intake
from tradeback.ingest.arbiter import find_uncertified
from tradeback.ingest.context import FROM_TRADE, LAST_TRADE
from tradeback.model.clock import Clock
from tradeback.model.errors import TapeError
from tradeback.model.limits import SEEN_WINDOW_IDS
from tradeback.model.record import AGG, BUYER_MAKER, LINE_MASK, STAND_IN, TRADE, Rows, empty_rows
from tradeback.model.symbols import SymbolTable
from tradeback.ops.beat import beat
from tradeback.ops.metrics import Family
from tradeback.tape.query import Query
from tradeback.tape.reader import TapeReader

ROWS_PER_STEP = 16_384
SEARCHES_PER_STEP = 4
"""Each reads the tape for about 10 ms, and the loop has other work."""
LOOK_BACK_ROWS = 65_536
"""How far before an aggregate its trades are looked for."""
STEP_S = 1.0
WAITING_MAX = 1 << 16
"""Aggregates that wait for a repair (20 MB); beyond that the oldest are let go, and counted."""
JUDGED_AGAIN_PER_STEP = 256
JUST_SETTLED_NS = 10_000_000_000
"""A gap that was given up so shortly before the end may not have had its stand-ins yet."""
NEAR_US = 60_000_000
"""Trades of an aggregate have its time, or one close to it."""


class _Waiting(NamedTuple):
    """An aggregate of whose trades some may still come."""

    agg: Rows
    sequence: int


class StandIns:
    """The reader that certifies. `step` on a timer, on the loop thread."""

    def __init__(
        self,
        intake: Intake,
        symbols: SymbolTable,
        grace_s: float,
        start_sequence: int,
        ledger: Completeness | None = None,
    ) -> None:
        self._intake, self._symbols, self._ledger = intake, symbols, ledger
        self._waiting: deque[_Waiting] = deque()
        self._partial: list[Rows] = []
        """Aggregates of whose trades some are there, which have to be looked for on the disk."""
        self._reader: TapeReader | None = None
        self.let_go = self.passed_over = 0
        self._grace_ns = int(grace_s * 1e9)
        self.cursor = start_sequence
        self.certified = 0
        self.stood_in = 0
        self.trades_stood_in = 0

    # What the last run waited for.

    def restore(self) -> int:
        """Aggregates before the cursor whose trades may still come, or never will and nothing stands in for
        them yet: to be judged again. Before `run`, when the ledger knows the whole tape; in a thread.

        Returns how many were found.
        """
        ledger, tape = self._ledger, self._intake.tape
        if ledger is None:
            return 0
        self.cursor = max(self.cursor, tape.next_sequence - tape.hot_rows // 2)
        if tape.next_sequence == tape.oldest_sequence:
            return 0
        newest_ns = int(tape.read(tape.next_sequence - 1, 1)["recv_ns"][0])
        settled = [gap for gap in ledger.gaps(UNREPAIRABLE) if gap.closed_ns >= newest_ns - JUST_SETTLED_NS]
        found: dict[int, Rows] = {}
        for gap in (*ledger.gaps(OPEN), *settled):
            # Where records are damaged nothing is found; that is said elsewhere, and a start goes on.
            with suppress(TapeError):
                found.update(self._touching(gap) if gap.stream == TRADES else ())
        kept = [_Waiting(found[sequence], sequence) for sequence in sorted(found)]
        kept = [one for one in kept if ledger.fate(*_trades_of(one.agg)) != []]
        self._waiting.extend(kept[-WAITING_MAX:])
        self.let_go += max(0, len(kept) - WAITING_MAX)
        return len(kept)

    def _touching(self, gap: Gap) -> Iterator[tuple[int, Rows]]:
        """Aggregates before the cursor with trades in this gap, by sequence."""
        query = Query(
            gap.symbol_id,
            kinds=(AGG,),
            from_us=gap.before_us - NEAR_US if gap.before_us else None,
            to_us=gap.after_us + NEAR_US if gap.after_us else None,
        )
        for _, sequences, rows in self._tape_reader().find(query):
            touch = (rows["ask"] <= gap.last_id) & (rows["ask_quantity"] >= gap.first_id)
            touch &= sequences < self.cursor
            for place in np.flatnonzero(touch).tolist():
                yield int(sequences[place]), rows[place : place + 1].copy()

    def _tape_reader(self) -> TapeReader:
        if self._reader is None:
            self._reader = TapeReader(self._intake.tape.folder)
        return self._reader

    # Judging.

    async def run(self, clock: Clock) -> None:
        """Judge for ever."""
        while True:
            more = self.step(clock.wall_ns())
            await self.look_up()
            if more:
                await asyncio.sleep(0)
            else:
                await beat(STEP_S)

    def step(self, now_ns: int) -> bool:
        """Judge the next records that are older than the grace time; True when there are more.

        With a ledger, `look_up` finishes what has to be looked for on the disk.
        """
        tape = self._intake.tape
        hot = tape.next_sequence - tape.hot_rows // 2
        if self.cursor < hot:
            self.passed_over += hot - self.cursor
            self.cursor = hot
        self._judge_again()
        if self._ledger is not None:
            return self._intake.stalled is None and self._judge(self._ledger, now_ns - self._grace_ns)
        rows = tape.read(self.cursor, ROWS_PER_STEP)
        # Stamps do not rise from record to record: stand-ins carry their aggregate's.
        young = rows["recv_ns"] > now_ns - self._grace_ns
        ripe = int(young.argmax()) if young.any() else len(rows)
        rows = np.ascontiguousarray(rows[:ripe])
        if not len(rows) or self._intake.stalled is not None:
            return False
        found = np.zeros(len(rows), np.int64)
        context = self._intake.context.address
        count = find_uncertified(context, int(rows.ctypes.data), len(rows), int(found.ctypes.data))
        judged, searches = len(rows), 0
        for index in map(int, found[:count]):
            if searches == SEARCHES_PER_STEP or self._intake.stalled is not None:
                judged = index
                break
            searches += self._stand_in(rows[index : index + 1], self.cursor + index)
        done = rows["kind"][:judged] == AGG
        self.certified += int(np.count_nonzero(done)) - int(np.count_nonzero(found[:count] < judged))
        self.cursor += judged
        return judged < len(rows) or ripe == ROWS_PER_STEP

    def _judge(self, ledger: Completeness, limit_ns: int) -> bool:
        """By the ledger: whose trades are not all there waits, or gets its stand-in at once. True when there
        are more."""
        tape, begin = self._intake.tape, self.cursor
        rows = tape.view_with_epoch(begin, ROWS_PER_STEP)[1]
        ripe, aggregates, doubtful = ledger.ripe(rows, limit_ns)
        self.certified += aggregates - len(doubtful)
        self.cursor += ripe
        doubted = rows[doubtful]  # no view: what stands in for them is appended
        for place, index in enumerate(doubtful.tolist()):
            self._settle(ledger, _Waiting(doubted[place : place + 1].copy(), begin + index))
        return 0 < ripe == len(rows) and self.cursor < tape.next_sequence

    def _judge_again(self) -> None:
        if self._ledger is None:
            return
        for _ in range(min(len(self._waiting), JUDGED_AGAIN_PER_STEP)):
            if self._intake.stalled is not None:
                return
            self._settle(self._ledger, self._waiting.popleft())

    def _settle(self, ledger: Completeness, waiting: _Waiting) -> None:
        agg = waiting.agg
        symbol_id, first, last = _trades_of(agg)
        fate = ledger.fate(symbol_id, first, last)
        if fate is None or self._intake.stalled is not None:
            self._waiting.append(waiting)
            if len(self._waiting) > WAITING_MAX:
                self._waiting.popleft()
                self.let_go += 1
        elif not fate:
            self.certified += 1
        elif fate == [(first, last)]:
            self._put(agg, fate, float(agg["quantity"][0]))
        else:
            self._partial.append(agg)

    async def look_up(self) -> None:
        """Stand in for aggregates of which some trades are there. Those are looked for in a thread."""
        while self._partial and self._ledger is not None and self._intake.stalled is None:
            agg = self._partial[0]
            ask = _trades_of(agg)
            held = await asyncio.to_thread(partial(self._held, *ask, int(agg["exchange_us"][0])))
            fate = self._ledger.fate(*ask)
            self._partial.pop(0)
            if fate and self._intake.stalled is None:
                self._put(agg, fate, self._rest(agg, held))

    def _held(self, symbol_id: int, first: int, last: int, time_us: int) -> dict[int, tuple[float, int]]:
        """In a thread: trades and stand-ins of the id range, wherever they are on the tape."""
        rows = self._tape_reader().symbol_rows(
            symbol_id,
            kinds=(TRADE,),
            from_us=time_us - NEAR_US,
            to_us=time_us + NEAR_US,
            from_id=first,
            rows_max=last - first + 1,
            by_id=True,
        )
        return _by_id(rows[rows["id"] <= last])

    def _rest(self, agg: Rows, held: dict[int, tuple[float, int]]) -> float:
        """What is missing to the aggregate's quantity, exact in lots."""
        symbol = self._symbols.by_id(int(agg["symbol_id"][0]))
        scale = 10 ** (symbol.lot_digits if symbol else 8)
        lots = round(float(agg["quantity"][0]) * scale)
        lots -= sum(round(quantity * scale) for quantity, _ in held.values())
        return float(max(lots, 0) / scale)

    def _put(self, agg: Rows, ranges: list[Range], quantity: float) -> None:
        """One stand-in for all ids of `ranges`."""
        count = sum(last - first + 1 for first, last in ranges)
        try:
            self._put_counted(agg, ranges[0][0], ranges[-1][1], count, quantity)
        except TapeError:
            self._partial.append(agg)  # the tape has begun to refuse: once more when it takes again

    def _put_counted(self, agg: Rows, first: int, last: int, count: int, quantity: float) -> None:
        row = empty_rows(1)
        for name in ("exchange_us", "recv_ns", "price", "symbol_id"):
            row[name] = agg[name]
        row["kind"], row["quantity"] = TRADE, quantity
        row["ask"], row["id"], row["ask_quantity"] = first, last, count
        row["flags"] = (int(agg["flags"][0]) & (BUYER_MAKER | LINE_MASK)) | STAND_IN
        self._intake.admit(row)
        self.stood_in += 1
        self.trades_stood_in += count

    def _stand_in(self, agg: Rows, sequence: int) -> bool:
        """Put the stand-in for one aggregate on the tape; True when that took a search of the tape."""
        symbol_id, first, last = _trades_of(agg)
        search = self._may_have(symbol_id, first, last)
        seen = self._trades(symbol_id, first, last, sequence) if search else {}
        missing = (last - first + 1) - sum(weight for _, weight in seen.values())
        if missing <= 0:
            return search
        unseen = [number for number in range(first, last + 1) if number not in seen]
        self._put_counted(agg, unseen[0], unseen[-1], missing, self._rest(agg, seen))
        return search

    def _may_have(self, symbol_id: int, first: int, last: int) -> bool:
        """Can any trade of the id range be on the tape? After an outage none is, and no search is needed."""
        context = self._intake.context
        state, window = context.states[symbol_id], context.trade_windows[symbol_id]
        highest = int(state[LAST_TRADE // 8])
        if state[FROM_TRADE // 8] == 0:
            return False
        if first <= highest - SEEN_WINDOW_IDS:
            return True
        places = np.arange(first, min(last, highest) + 1) & (SEEN_WINDOW_IDS - 1)
        return bool(np.any(window[places >> 6] >> (places & 63).astype(np.uint64) & np.uint64(1)))

    def _trades(self, symbol_id: int, first: int, last: int, sequence: int) -> dict[int, tuple[float, int]]:
        """Trades of the id range on the tape, by id: (quantity, how many trades the record stands for)."""
        tape = self._intake.tape
        start = max(tape.oldest_sequence, sequence - LOOK_BACK_ROWS)
        held: dict[int, tuple[float, int]] = {}
        while start < tape.next_sequence:
            rows = tape.read(start, LOOK_BACK_ROWS)
            if not len(rows):
                break
            wanted = (rows["kind"] == TRADE) & (rows["symbol_id"] == symbol_id)
            wanted &= (rows["id"] >= first) & (rows["id"] <= last)
            held |= _by_id(rows[wanted])
            start += len(rows)
        return held

    def collect(self) -> Iterator[Family]:
        """How many aggregates were certified, and what was made up for."""
        for name, value, text in (
            ("aggregates_certified", self.certified, "Aggregates whose trades were all seen."),
            ("aggregates_stood_in", self.stood_in, "Aggregates that stand in for trades."),
            ("trades_stood_in", self.trades_stood_in, "Trades that never came, by their aggregate."),
            ("aggregate_records_passed_over", self.passed_over, "Records that came too fast to be judged."),
        ):
            yield Family(f"tradeback_{name}", "counter", text).add(value)
        if self._ledger is not None:
            yield Family("tradeback_aggregates_waiting", "gauge", "Aggregates whose trades may come.").add(
                len(self._waiting)
            )
            yield Family("tradeback_aggregates_let_go", "counter", "Aggregates too many to wait.").add(
                self.let_go
            )


def _trades_of(agg: Rows) -> tuple[int, int, int]:
    """Symbol, first and last trade of an aggregate."""
    return int(agg["symbol_id"][0]), int(agg["ask"][0]), int(agg["ask_quantity"][0])


def _by_id(rows: Rows) -> dict[int, tuple[float, int]]:
    """Trades by id: (quantity, how many trades the record stands for)."""
    return {
        int(row["id"]): (float(row["quantity"]), int(row["ask_quantity"]) if row["flags"] & STAND_IN else 1)
        for row in rows
    }
