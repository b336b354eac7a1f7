"""The lines of trades in plain Python: what the kernel is held against."""

import math

import numpy as np

from tradeback.model.record import QUOTE, TRADE, Rows
from tradeback.stores.influx_lines import EXCHANGE, Names, trade_ns
from tradeback.wire.influx_layout import QUOTE_BACK_ROWS, SLOTS


class PlainLines:
    """Encodes trades in tape order. What it writes of a record depends on the tape alone: the QUOTE_BACK_ROWS
    records before it, which `encode` or `warm` must have seen."""

    def __init__(self, names: Names, measurement: str = "trades") -> None:
        self._names, self._measurement = names, measurement
        self._heads: dict[int, str] = {}
        self._quotes: dict[int, tuple[float, float, int]] = {}
        self._runs: dict[int, tuple[int, int]] = {}

    def encode(self, rows: Rows, first_sequence: int) -> list[str]:
        """One line per record: "" for what is no trade, and for a trade that InfluxDB cannot take (a symbol
        without a name, a price that is no number)."""
        quotes, runs, heads = self._quotes, self._runs, self._heads
        lines = [""] * len(rows)
        columns = ("kind", "symbol_id", "exchange_us", "id", "price", "quantity", "ask")
        wanted = np.flatnonzero((rows["kind"] == TRADE) | (rows["kind"] == QUOTE))
        picked = rows[wanted]
        values = (picked[name].tolist() for name in columns)
        for index, kind, symbol_id, us, id_, price, quantity, ask in zip(
            wanted.tolist(), *values, strict=True
        ):
            sequence = first_sequence + index
            if kind == QUOTE:
                quotes[symbol_id] = price, ask, sequence
                continue
            run = runs.get(symbol_id)
            if run is None or run[0] != us:
                run = runs[symbol_id] = us, id_
            ns = us * SLOTS + id_ % SLOTS
            if id_ - run[1] >= SLOTS:
                ns = trade_ns(us, id_, run[1])
            head = heads.get(symbol_id) or self._head(symbol_id)
            if not head or not math.isfinite(price) or not math.isfinite(quantity):
                continue
            quote = quotes.get(symbol_id)
            if (
                quote is not None
                and sequence - quote[2] <= QUOTE_BACK_ROWS
                and math.isfinite(quote[0] + quote[1])
            ):
                lines[index] = (
                    f"{head}{price!r},bid={quote[0]!r},ask={quote[1]!r},volume={quantity!r},"
                    f"sequence={sequence}i,id={id_}i {ns}"
                )
            else:
                lines[index] = f"{head}{price!r},volume={quantity!r},sequence={sequence}i,id={id_}i {ns}"
        return lines

    def _head(self, symbol_id: int) -> str:
        symbol = self._names.tag(symbol_id)
        if symbol is None:
            return ""
        head = f"{self._measurement},exchange={EXCHANGE},symbol={symbol} price="
        self._heads[symbol_id] = head
        return head
