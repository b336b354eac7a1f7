"""Fold trades into last price and summed volume per symbol, for a client that reads too slowly."""

from typing import Any

from tradeback.kernel.jit import helper, kernel
from tradeback.kernel.memory import load_8, load_16, load_f64, load_i64, store_64, store_f64
from tradeback.kernel.row import FLAGS, KIND, PRICE, QUANTITY, ROW_BYTES, SYMBOL_ID
from tradeback.model.record import LATE, TRADE
from tradeback.wire import v1_layout as at

_WANTED, _SCALES, _LOTS = 8 * at.WANTED, 8 * at.SCALES, 8 * at.LOTS
_EXTRAS, _PRICES, _ORDER = 8 * at.EXTRAS, 8 * at.PRICES, 8 * at.ORDER
_LOTS_EXACT_MAX = 9007199254740992.0  # 2^53: above it a float64 is no longer an exact count of lots
_SCALE_DEFAULT = 1e8


@helper
def _add_quantity(scratch: Any, symbol: Any, quantity: Any) -> None:
    """Add to the sum in lots; a quantity that is off the grid of lots goes to the extras."""
    scale = load_f64(load_i64(scratch + _SCALES) + 8 * symbol)
    if scale == 0.0:
        scale = _SCALE_DEFAULT
    if quantity * scale < _LOTS_EXACT_MAX:
        lots = round(quantity * scale)
        if lots / scale == quantity:
            place = load_i64(scratch + _LOTS) + 8 * symbol
            store_64(place, load_i64(place) + lots)
            return
    place = load_i64(scratch + _EXTRAS) + 8 * symbol
    store_f64(place, load_f64(place) + quantity)


@kernel("int64(int64,int64,int64,int64)")
def conflate(scratch: Any, rows: Any, n: Any, touched: Any) -> Any:
    """Fold the wanted trades among `n` rows from address `rows` on; layout of `scratch`: `wire.v1_layout`.

    `touched` is the number of symbols that earlier calls of the same catch-up touched; the new number
    is returned, their ids stand in ORDER. Quantities are summed as whole lots, so that the sum is as
    exact as its parts. A late trade adds its volume but does not turn the price back.
    """
    wanted = load_i64(scratch + _WANTED)
    everything = load_8(wanted) != 0
    for index in range(n):
        row = rows + ROW_BYTES * index
        if load_8(row + KIND) != TRADE:
            continue
        symbol = load_16(row + SYMBOL_ID)
        if not everything and load_8(wanted + symbol) == 0:
            continue
        price = load_i64(scratch + _PRICES) + 8 * symbol
        if load_f64(price) == 0.0:
            store_64(load_i64(scratch + _ORDER) + 8 * touched, symbol)
            touched += 1
            store_f64(price, load_f64(row + PRICE))
        elif load_8(row + FLAGS) & LATE == 0:
            store_f64(price, load_f64(row + PRICE))
        _add_quantity(scratch, symbol, load_f64(row + QUANTITY))
    return touched
