"""Aggregates certify trades; where a trade never came, its aggregate stands in at its price.

Behind its own cursor, a grace time after the head of the tape: every aggTrade names the first and last
trade it merged. Trades of the range that were never seen are made up for by one STAND_IN record: the
aggregate's price, the quantity that is missing to its own. Should a trade come after all, it is dropped
as seen; REST repair replaces stand-ins by the real trades where single trades matter.
"""

from collections.abc import Iterator

import numpy as np

from tradeback.exchange.intake import Intake
from tradeback.ingest.arbiter import find_uncertified
from tradeback.ingest.context import FROM_TRADE, LAST_TRADE
from tradeback.model.limits import SEEN_WINDOW_IDS
from tradeback.model.record import AGG, BUYER_MAKER, LINE_MASK, STAND_IN, TRADE, Rows, empty_rows
from tradeback.model.symbols import SymbolTable
from tradeback.ops.metrics import Family

ROWS_PER_STEP = 4_096
SEARCHES_PER_STEP = 4
"""Each reads the tape for about 10 ms, and the loop has other work."""
LOOK_BACK_ROWS = 65_536
"""How far before an aggregate its trades are looked for."""


class StandIns:
    """The reader that certifies. `step` on a timer, on the loop thread."""

    def __init__(self, intake: Intake, symbols: SymbolTable, grace_s: float, start_sequence: int) -> None:
        self._intake, self._symbols = intake, symbols
        self._grace_ns = int(grace_s * 1e9)
        self.cursor = start_sequence
        self.certified = 0
        self.stood_in = 0
        self.trades_stood_in = 0

    def step(self, now_ns: int) -> bool:
        """Judge the next records that are older than the grace time; True when there are more."""
        tape = self._intake.tape
        self.cursor = max(self.cursor, tape.next_sequence - tape.hot_rows // 2)
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

    def _stand_in(self, agg: Rows, sequence: int) -> bool:
        """Put the stand-in for one aggregate on the tape; True when that took a search of the tape."""
        first, last = int(agg["ask"][0]), int(agg["ask_quantity"][0])
        symbol_id = int(agg["symbol_id"][0])
        search = self._may_have(symbol_id, first, last)
        seen = self._trades(symbol_id, first, last, sequence) if search else {}
        missing = (last - first + 1) - sum(weight for _, weight in seen.values())
        if missing <= 0:
            return search
        symbol = self._symbols.by_id(symbol_id)
        scale = 10 ** (symbol.lot_digits if symbol else 8)
        lots = round(float(agg["quantity"][0]) * scale)
        lots -= sum(round(quantity * scale) for quantity, _ in seen.values())
        row = empty_rows(1)
        for name in ("exchange_us", "recv_ns", "price", "symbol_id"):
            row[name] = agg[name]
        row["kind"] = TRADE
        unseen = [number for number in range(first, last + 1) if number not in seen]
        row["id"], row["ask"] = unseen[-1], unseen[0]
        row["ask_quantity"] = missing
        row["quantity"] = max(lots, 0) / scale
        row["flags"] = (int(agg["flags"][0]) & (BUYER_MAKER | LINE_MASK)) | STAND_IN
        self._intake.admit(row)
        self.stood_in += 1
        self.trades_stood_in += missing
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
            for row in rows[wanted]:
                weight = int(row["ask_quantity"]) if row["flags"] & STAND_IN else 1
                held[int(row["id"])] = (float(row["quantity"]), weight)
            start += len(rows)
        return held

    def collect(self) -> Iterator[Family]:
        """How many aggregates were certified, and what was made up for."""
        for name, value, text in (
            ("aggregates_certified", self.certified, "Aggregates whose trades were all seen."),
            ("aggregates_stood_in", self.stood_in, "Aggregates that stand in for trades."),
            ("trades_stood_in", self.trades_stood_in, "Trades that never came, by their aggregate."),
        ):
            yield Family(f"tradeback_{name}", "counter", text).add(value)
