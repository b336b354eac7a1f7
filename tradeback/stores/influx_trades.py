"""Trades of the tape as lines for InfluxDB: the kernel's half in Python. See influx_lines for the schema."""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tradeback.model.record import TRADE, Rows
from tradeback.stores.influx_lines import EXCHANGE, Names
from tradeback.wire import influx_layout as at

WARM_ROWS: Final = 8_192
_PADDING: Final = bytes(8)


class Lines(NamedTuple):
    """The lines of some records in one piece; empty for what is no trade, and for a trade that InfluxDB
    cannot take (a symbol without a name, a price that is no number)."""

    data: bytes
    ends: NDArray[np.int64]
    """Record i has data[ends[i]:ends[i + 1]]."""

    def part(self, first: int, end: int) -> "Lines":
        """Those of records `first` up to `end`."""
        start, stop = int(self.ends[first]), int(self.ends[end])
        return Lines(self.data[start:stop], self.ends[first : end + 1] - start)

    def has(self, records: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which of the records have a line."""
        found: NDArray[np.bool_] = self.ends[records] != self.ends[records + 1]
        return found


class TradeLines:
    """Encodes trades in tape order, `attach` first. What it writes of a record depends on the tape alone: the
    QUOTE_BACK_ROWS records before it, which `encode` or `warm` must have seen."""

    def __init__(self, names: Names, measurement: str = "trades") -> None:
        self._names, self._measurement = names, measurement
        self._heads: list[NDArray[np.uint8]] = []
        self._longest = 0
        self._named: NDArray[np.bool_] = np.zeros(at.SYMBOL_IDS, np.bool_)
        self._states: NDArray[np.int64] = np.zeros((at.SYMBOL_IDS, at.STATE_WORDS), np.int64)
        digits = "".join(f"{number:02}" for number in range(100)).encode()
        self._pairs: NDArray[np.uint8] = np.frombuffer(digits, np.uint8)
        self._texts: NDArray[np.int64] = np.zeros((at.TEXT_COUNT, at.TEXT_WORDS), np.int64)
        self._context: NDArray[np.int64] = np.zeros(at.CONTEXT_WORDS, np.int64)
        self._context_address = int(self._context.ctypes.data)
        for word, array in ((at.STATES, self._states), (at.PAIRS, self._pairs), (at.TEXTS, self._texts)):
            self._context[word] = array.ctypes.data
        self._arena: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._encode: Callable[[int, int, int, int, int], int] | None = None

    def attach(self) -> None:
        """Take the kernel; imports numba, and compiles for a second where there is no cache: in a thread."""
        if self._encode is None:
            from tradeback.kernel.jit import entry
            from tradeback.wire.influx_kernel import encode_trades

            self._encode = entry(encode_trades)

    def forget(self) -> None:
        """Records that do not follow on those before are next."""
        ids = np.flatnonzero(self._states.any(axis=1))
        self._states[ids, : at.HEAD] = 0

    def warm(self, rows: Rows, first_sequence: int) -> None:
        """See records without encoding them."""
        for start in range(0, len(rows), WARM_ROWS):
            self.encode(rows[start : start + WARM_ROWS], first_sequence + start)

    def encode(self, rows: Rows, first_sequence: int) -> Lines:
        """The lines of adjacent records, rows[0] being the one at `first_sequence`."""
        assert self._encode is not None, "attach comes first"
        held, count, context = np.ascontiguousarray(rows), len(rows), self._context
        self._name(held)
        needed = count * (at.LINE_BYTES_MAX + self._longest)
        if len(self._arena) < needed:
            self._arena = np.empty(needed, np.uint8)
        ends: NDArray[np.int64] = np.zeros(count + 1, np.int64)
        context[at.OUT], context[at.ENDS] = self._arena.ctypes.data, ends.ctypes.data
        context[at.WRITTEN], context[at.TEXTS_ROW] = 0, -1
        address, done = int(held.ctypes.data), 0
        while (done := self._encode(self._context_address, address, done, count, first_sequence)) < count:
            self._write_numbers(held[done])
            context[at.TEXTS_ROW] = done
        return Lines(self._arena[: int(context[at.WRITTEN])].tobytes(), ends)

    def _write_numbers(self, row: np.void) -> None:
        """The numbers of one trade, as Python writes them."""
        quote = self._states[int(row["symbol_id"])].view(np.float64)
        values = {
            at.PRICE_TEXT: row["price"], at.QUANTITY_TEXT: row["quantity"],
            at.BID_TEXT: quote[at.BID], at.ASK_TEXT: quote[at.ASK],
        }  # fmt: skip
        for place, value in values.items():
            text = repr(float(value)).encode()
            self._texts[place, 0] = len(text)
            self._texts[place, 1:].view(np.uint8)[: len(text)] = np.frombuffer(text, np.uint8)

    def _name(self, rows: Rows) -> None:
        """Find a name for every symbol that has traded; one without is asked for again the next time."""
        ids = rows["symbol_id"][rows["kind"] == TRADE]
        if self._named[ids].all():
            return
        for symbol_id in np.unique(ids[~self._named[ids]]).tolist():
            symbol = self._names.tag(symbol_id)
            if symbol is None:
                continue
            text = f"{self._measurement},exchange={EXCHANGE},symbol={symbol} price=".encode()
            head: NDArray[np.uint8] = np.frombuffer(text + _PADDING, np.uint8)
            self._heads.append(head)
            self._states[symbol_id, at.HEAD], self._states[symbol_id, at.HEAD_BYTES] = (
                head.ctypes.data,
                len(text),
            )
            self._longest = max(self._longest, len(text))
            self._named[symbol_id] = True
