"""The last trade of a symbol at or before a time, from the tape, and whether that is proved.

It is proved when the trade with the next id was on the tape before it was read: ids rise by one and times
do not fall, so that one came later, or it would be the answer. The newest trade of a symbol is therefore
never proved.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from tradeback.api.context import ServingContext
from tradeback.api.errors import ApiError
from tradeback.model.record import TRADE
from tradeback.model.symbols import Symbol
from tradeback.tape.reader import TapeReader

LOOK_BACK_FIRST_US = 1_000_000
LOOK_BACK_MAX_US = 10_000_000_000_000
"""116 days; the tape is kept for a week."""
LOOK_BACK_ROWS_MAX = 1 << 24
READINGS_MAX = 3
"""How often a price is looked up anew when trades are repaired meanwhile."""


@dataclass(frozen=True, slots=True)
class PriceAt:
    """What was found."""

    trade: np.void
    """A row of the tape."""
    complete: bool
    final: bool
    """Waiting will not make it complete."""

    @property
    def trade_id(self) -> int:
        """Of the trade."""
        return int(self.trade["id"])


async def price_at(context: ServingContext, symbol: Symbol, at_ms: int) -> PriceAt:
    """The last trade up to a time. ApiError 404 `no_trade` when the tape holds none, 503 before the start."""
    read = partial(_read, context, symbol, at_ms)
    if context.gaps is None:
        return PriceAt(await context.reads.run(read), False, False)
    ledger = context.gaps.ledger
    fills, span = -1, None
    for _ in range(READINGS_MAX):
        if ledger.fills == fills:
            break
        fills, span = ledger.fills, ledger.span(symbol.id)
        trade = await context.reads.run(read)
    number = int(trade["id"])
    if ledger.fills != fills or span is None:  # a trade that was repaired meanwhile may be the right one
        return PriceAt(trade, False, False)
    if number >= span[1]:
        return PriceAt(trade, False, False)
    complete = ledger.holds(symbol.id, number) and ledger.holds(symbol.id, number + 1)
    settled = number < span[0] or ledger.fate(symbol.id, number, number + 1) is not None
    return PriceAt(trade, complete, complete or settled)


def next_trade_us(context: ServingContext, symbol: Symbol, trade: np.void) -> int | None:
    """When the trade with the next id was made, us; None when it is not found near. In a thread."""
    reader, begin_us, width_us = _reader(context), int(trade["exchange_us"]), LOOK_BACK_FIRST_US
    while width_us <= LOOK_BACK_MAX_US:
        rows = reader.symbol_rows(
            symbol.id, kinds=(TRADE,), from_us=begin_us, to_us=begin_us + width_us,
            from_id=int(trade["id"]) + 1, rows_max=1, by_id=True,
        )  # fmt: skip
        if len(rows):
            return int(rows["exchange_us"][0]) if rows["id"][0] == trade["id"] + 1 else None
        begin_us, width_us = begin_us + width_us, 10 * width_us
    return None


def _read(context: ServingContext, symbol: Symbol, at_ms: int) -> np.void:
    """Look back from `at_ms` in ever longer steps, so that a busy symbol costs a second of the tape."""
    reader = _reader(context)
    end_us, width_us = (at_ms + 1) * 1_000, LOOK_BACK_FIRST_US
    while end_us > 0 and width_us <= LOOK_BACK_MAX_US:
        begin_us = max(0, end_us - width_us)
        rows = reader.symbol_rows(
            symbol.id, kinds=(TRADE,), from_us=begin_us, to_us=end_us, rows_max=LOOK_BACK_ROWS_MAX
        )
        if len(rows):
            found: np.void = rows[np.argmax(rows["id"])]
            return found
        end_us, width_us = begin_us, 10 * width_us
    raise ApiError(404, "no_trade", f"the tape holds no trade of {symbol.symbol} at or before that time")


def _reader(context: ServingContext) -> TapeReader:
    if context.reader is None:
        raise ApiError(503, "not_ready", "the tape cannot be read yet; try again in a moment")
    return context.reader
