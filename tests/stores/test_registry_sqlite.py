"""Symbols and their ids."""

import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.model.errors import StartupError, TradebackError
from tradeback.stores import registry_rows
from tradeback.stores.ports import SymbolRecord
from tradeback.stores.registry_sqlite import RegistrySqlite


def record(name: str, *, active: bool = True, step: str = "0.00001000") -> SymbolRecord:
    return SymbolRecord(
        name, name[:3], "USDT", active, "0.01000000", step, "5.00000000", step, "9000.00000000"
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.sampled_from("ABCDEFGHIJ"), max_size=8), max_size=6))
def test_ids_never_change(tmp_path_factory: pytest.TempPathFactory, rounds: list[list[str]]) -> None:
    path = tmp_path_factory.mktemp("registry") / "registry.sqlite"
    ids: dict[str, int] = {}
    for names in rounds:
        registry = RegistrySqlite(path)
        found = registry.assign([record(name) for name in names])
        assert [symbol.symbol for symbol in found] == names
        for symbol in found:
            assert ids.setdefault(symbol.symbol, symbol.id) == symbol.id
        assert {symbol.symbol: symbol.id for symbol in registry.symbols()} == ids
        registry.close()
    assert sorted(ids.values()) == list(range(1, len(ids) + 1)), "each new symbol gets the next id"


def test_descriptions_follow_the_exchange(tmp_path: Path) -> None:
    registry = RegistrySqlite(tmp_path / "new" / "registry.sqlite")
    (symbol,) = registry.assign([record("BTCUSDT")])
    assert (symbol.id, symbol.price_precision, symbol.quantity_precision) == (1, 2, 5)
    assert (symbol.name, symbol.min_notional, symbol.max_quantity) == (
        "BTC/USDT",
        "5.00000000",
        "9000.00000000",
    )
    (changed,) = registry.assign([record("BTCUSDT", active=False, step="0.10000000")])
    assert (changed.id, changed.is_active, changed.quantity_precision) == (1, False, 1)
    assert registry.symbols() == [changed]
    registry.close()


def test_plain_tuples_are_records(tmp_path: Path) -> None:
    registry = RegistrySqlite(tmp_path / "registry.sqlite")
    plain = ("币安USDT", "币安", "USDT", True, "0.1", "1", "5", "1", "900")
    (symbol,) = registry.assign([plain])  # type: ignore[list-item]
    assert (symbol.symbol, symbol.step_size) == ("币安USDT", "1")
    registry.close()


def test_three_thousand_symbols_are_quick_and_unchanged_ones_untouched(tmp_path: Path) -> None:
    registry = RegistrySqlite(tmp_path / "registry.sqlite")
    records = [record(f"S{number}USDT") for number in range(3_000)]
    began = time.perf_counter()
    assert [symbol.id for symbol in registry.assign(records)] == list(range(1, 3_001))
    assert time.perf_counter() - began < 3.0
    with sqlite3.connect(tmp_path / "registry.sqlite") as connection:
        connection.execute("UPDATE symbolsmap SET updated_at = 'before'")
        connection.commit()
        records[7] = record("S7USDT", active=False)
        registry.assign(records)
        touched = connection.execute("SELECT symbol FROM symbolsmap WHERE updated_at != 'before'").fetchall()
    connection.close()
    assert touched == [("S7USDT",)]
    registry.close()


def test_the_table_has_the_documented_columns(tmp_path: Path) -> None:
    registry = RegistrySqlite(tmp_path / "registry.sqlite")
    registry.assign([record("BTCUSDT")])
    connection = sqlite3.connect(tmp_path / "registry.sqlite")
    columns = {row[1] for row in connection.execute("PRAGMA table_info(symbolsmap)")}
    (row,) = connection.execute("SELECT price_precision, quantity_precision, created_at FROM symbolsmap")
    connection.close()
    assert columns == {
        "id", "symbol", "base_currency", "quote_currency", "is_active", "price_precision",
        "quantity_precision", "min_quantity", "max_quantity", "step_size", "min_notional",
        "created_at", "updated_at", "tick_size",
    }  # fmt: skip
    assert row[:2] == (2, 5)
    assert row[2].endswith("Z")
    registry.close()


def test_when_ids_run_out_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_rows, "SYMBOL_IDS_MAX", 3)
    registry = RegistrySqlite(tmp_path / "registry.sqlite")
    registry.assign([record("AUSDT")])
    with pytest.raises(TradebackError, match="symbol id 4"):
        registry.assign([record(f"{name}USDT") for name in "BCD"])
    assert [symbol.id for symbol in registry.symbols()] == [1]
    assert [symbol.id for symbol in registry.assign([record("BUSDT"), record("CUSDT")])] == [2, 3]
    registry.close()


def test_files_that_cannot_be_used_are_refused_with_a_remedy(tmp_path: Path) -> None:
    broken = tmp_path / "registry.sqlite"
    broken.write_bytes(b"this is no database, but long enough to look like a header of one" * 20)
    with pytest.raises(StartupError, match="DATA_DIR"):
        RegistrySqlite(broken)
    with pytest.raises(StartupError, match="DATA_DIR"):
        RegistrySqlite(broken / "below" / "registry.sqlite")
    newer = tmp_path / "newer.sqlite"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StartupError, match="version 99"):
        RegistrySqlite(newer)
