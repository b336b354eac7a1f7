"""How symbols, times and decimals stand in the registry's columns."""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

from tradeback.model.errors import StoreError
from tradeback.model.symbols import SYMBOL_IDS_MAX, Symbol, decimals
from tradeback.stores.ports import SymbolRecord

COLUMNS = (
    "base_currency", "quote_currency", "is_active", "tick_size", "step_size", "min_notional",
    "min_quantity", "max_quantity", "price_precision", "quantity_precision",
)  # fmt: skip
"""Of symbolsmap, in the order of `symbol_values`."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_TEXT = "1970-01-01T00:00:00.000000Z"
_TEXT = "%Y-%m-%dT%H:%M:%S.%fZ"
_GRAIN = Decimal("0.00000001")
_DECIMAL_MAX = Decimal(10) ** 12 - _GRAIN


def symbol_of(symbol_id: int, record: SymbolRecord) -> Symbol:
    """The symbol that a record describes."""
    return Symbol(id=symbol_id, **record._asdict())


def symbol_values(record: SymbolRecord) -> tuple[str | int, ...]:
    """The values of COLUMNS."""
    return (*record[1:], decimals(record.tick_size), decimals(record.step_size))


def record_of(symbol: Symbol) -> SymbolRecord:
    """What a symbol says of itself, without its id."""
    return SymbolRecord._make(getattr(symbol, name) for name in SymbolRecord._fields)


def check_id(symbol_id: int, where: str) -> None:
    """Raises StoreError when an id does not fit the wire."""
    if symbol_id > SYMBOL_IDS_MAX:
        raise StoreError(
            f"{where} would need symbol id {symbol_id}, the wire has {SYMBOL_IDS_MAX}: "
            "follow fewer symbols, or begin with a new registry"
        )


def decimal_of(text: str) -> Decimal:
    """A grid as DECIMAL(20,8) holds it: rounded to 8 places, cut to 12 digits before the point."""
    try:
        value = Decimal(text)
        return min(value, _DECIMAL_MAX).quantize(_GRAIN, ROUND_HALF_EVEN)
    except InvalidOperation as error:
        raise StoreError(f"{text[:40]!r} is no decimal number") from error


def moment(ns: int) -> datetime:
    """Nanoseconds since 1970 as a time in UTC, to the microsecond."""
    return EPOCH + timedelta(microseconds=ns // 1_000)


def moment_text(ns: int) -> str:
    """The same as text that sorts by time: 2026-11-21T05:21:22.000000Z."""
    return moment(ns).strftime(_TEXT)


def ns_of(value: datetime) -> int:
    """Nanoseconds since 1970 of a time in UTC."""
    since = value.replace(tzinfo=UTC) - EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def ns_of_text(text: str) -> int:
    """The inverse of `moment_text`."""
    return ns_of(datetime.fromisoformat(text))
