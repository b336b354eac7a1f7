"""Symbols and their grids."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.model.symbols import SYMBOL_IDS_MAX, Symbol, SymbolTable, decimals, lot_digits


@pytest.mark.parametrize(
    ("step", "count"),
    [("0.01000000", 2), ("1.00000000", 0), ("0.00000001", 8), ("10.00000000", 0), ("1", 0), ("0.1", 1)],
)
def test_decimals_of_a_step(step: str, count: int) -> None:
    assert decimals(step) == count


@given(st.integers(0, 8))
def test_the_lot_grid_holds_the_step_and_stays_within_eight_digits(digits: int) -> None:
    step = f"{Decimal(1).scaleb(-digits):.8f}"
    assert digits <= lot_digits(step) <= 8
    assert (Decimal(step) * 10 ** lot_digits(step)) % 1 == 0


def test_a_symbol_describes_itself() -> None:
    symbol = Symbol(3, "BTCUSDT", "BTC", "USDT", tick_size="0.01000000", step_size="0.00001000")
    assert (symbol.name, symbol.price_precision, symbol.quantity_precision, symbol.lot_digits) == (
        "BTC/USDT", 2, 5, 8,
    )  # fmt: skip
    assert Symbol(3, "BTCUSDT").name == "BTCUSDT"


def test_the_table_finds_by_name_and_id() -> None:
    table = SymbolTable.of([Symbol(2, "ETHUSDT"), Symbol(1, "BTCUSDT"), Symbol(9, "币安人生USDT")])
    assert [symbol.id for symbol in table] == [1, 2, 9]
    assert len(table) == 3
    found = table.find("btcusdt")
    assert found is not None
    assert found is table.find("BTCUSDT") is table.by_id(1)
    assert table.find("币安人生usdt") is table.by_id(9)
    assert table.find("NOSUCH") is None
    assert table.by_id(0) is None


def test_a_description_may_change_but_not_what_an_id_means() -> None:
    table = SymbolTable.of([Symbol(1, "BTCUSDT")])
    table.put(Symbol(1, "BTCUSDT", is_active=False))
    found = table.find("BTCUSDT")
    assert found is not None
    assert not found.is_active
    with pytest.raises(ValueError, match="already means BTCUSDT"):
        table.put(Symbol(1, "ETHUSDT"))
    assert table.find("ETHUSDT") is None


@pytest.mark.parametrize("symbol_id", [0, -1, SYMBOL_IDS_MAX + 1])
def test_ids_are_u16_and_not_0(symbol_id: int) -> None:
    with pytest.raises(ValueError, match=r"outside 1\.\.65535"):
        SymbolTable.of([Symbol(symbol_id, "BTCUSDT")])
