"""Exports read back: exact decimals in CSV, typed columns with units in Parquet, bounded row groups."""

import csv
import io
import struct
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tape.helpers import config, make_rows
from tradeback.model.errors import StartupError
from tradeback.model.record import KIND_NAMES
from tradeback.tape import export
from tradeback.tape.export import COLUMNS, UNITS, decimal_text, export_csv, export_parquet, flag_text
from tradeback.tape.query import Found, Query
from tradeback.tape.reader import TapeReader
from tradeback.tape.writer import Tape

NAMES = {1: "BTCUSDT", 2: "ETHUSDT", 3: "币安人生USDT"}
COUNT = 1_000


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[TapeReader]:
    with Tape.open(tmp_path / "tape", config(rows_per_segment=64)) as tape:
        tape.append(make_rows(COUNT))
        yield TapeReader(tmp_path / "tape")


@given(st.decimals(min_value=0, max_value=10**7, places=8, allow_nan=False, allow_infinity=False))
def test_what_the_exchange_wrote_comes_back_as_the_same_number(number: Decimal) -> None:
    text = decimal_text(float(f"{number:.8f}"))
    assert Decimal(text) == number
    assert "e" not in text.lower()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_reads_back_bit_for_bit(value: float) -> None:
    text = decimal_text(value)
    assert struct.pack("d", float(text)) == struct.pack("d", value)
    assert "e" not in text.lower()


def test_small_prices_have_no_exponent(tmp_path: Path) -> None:
    rows = make_rows(2)
    rows["price"] = 0.00001432, 3.0
    with Tape.open(tmp_path, config()) as tape:
        tape.append(rows)
        stream = io.StringIO()
        assert export_csv(TapeReader(tmp_path).find(Query(None)), NAMES, stream) == 2
    assert [row["price"] for row in csv.DictReader(io.StringIO(stream.getvalue()))] == ["0.00001432", "3"]


def test_parquet_reads_back_with_types_and_units(reader: TapeReader, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is an optional extra")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "out.parquet"
    assert export_parquet(reader.find(Query(None)), NAMES, path) == COUNT
    table = parquet.read_table(path)
    rows = make_rows(COUNT)
    assert table.column_names == list(COLUMNS)
    assert table.column("sequence").to_pylist() == list(range(1, COUNT + 1))
    for name in ("exchange_us", "recv_ns", "id", "price", "quantity", "ask", "ask_quantity"):
        column = table.column(name)
        assert column.type == (pa.float64() if rows[name].dtype.kind == "f" else pa.int64())
        assert column.to_numpy().tobytes() == np.ascontiguousarray(rows[name]).tobytes()
    assert table.column("symbol").to_pylist() == [
        NAMES.get(symbol_id, str(symbol_id)) for symbol_id in rows["symbol_id"].tolist()
    ]
    assert table.column("kind").to_pylist() == [KIND_NAMES[kind] for kind in rows["kind"].tolist()]
    assert table.column("flags").to_pylist() == [flag_text(flags) for flags in rows["flags"].tolist()]
    lines = ("A", "B", "rest", "local")
    assert table.column("line").to_pylist() == [lines[flags >> 6] for flags in rows["flags"].tolist()]
    for name, unit in UNITS.items():
        assert table.schema.field(name).metadata[b"unit"].decode() == unit
    assert b"tradeback.version" in table.schema.metadata


def test_row_groups_are_neither_tiny_nor_huge(
    reader: TapeReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 16 segments gives a piece of a few records; a group holds as many as fit."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an optional extra")
    monkeypatch.setattr(export, "ROWS_PER_GROUP", 128)
    pieces = list(reader.find(Query(1)))
    assert len(pieces) >= 15
    path = tmp_path / "out.parquet"
    count = export_parquet(iter(pieces), NAMES, path)
    held = parquet.ParquetFile(path)
    sizes = [held.metadata.row_group(at).num_rows for at in range(held.num_row_groups)]
    assert sum(sizes) == count == sum(len(piece.rows) for piece in pieces)
    assert max(sizes) <= 128
    assert len(sizes) == 2


def test_pieces_are_not_gathered(reader: TapeReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has been written is let go: never more than a row group and one piece are alive."""
    pytest.importorskip("pyarrow", reason="pyarrow is an optional extra")
    monkeypatch.setattr(export, "ROWS_PER_GROUP", 64)
    given_out: list[int] = []
    at_most: list[int] = []
    groups = export._groups

    def watched(found: Iterator[Found]) -> Iterator[list[Found]]:
        for group in groups(found):
            taken = sum(len(piece.rows) for piece in group)
            at_most.append(given_out[-1] - sum(sizes))
            sizes.append(taken)
            yield group

    sizes: list[int] = []

    def counted() -> Iterator[Found]:
        total = 0
        for piece in reader.find(Query(None)):
            total += len(piece.rows)
            given_out.append(total)
            yield piece

    monkeypatch.setattr(export, "_groups", watched)
    assert export_parquet(counted(), NAMES, tmp_path / "out.parquet") == COUNT
    assert len(sizes) >= COUNT // 64
    assert max(at_most) <= 128


def test_an_empty_choice_is_a_good_file(reader: TapeReader, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an optional extra")
    assert export_parquet(reader.find(Query(4_000)), NAMES, tmp_path / "none.parquet") == 0
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_without_pyarrow_the_remedy_is_told(
    reader: TapeReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(StartupError, match="tradeback\\[parquet\\]"):
        export_parquet(reader.find(Query(None)), NAMES, tmp_path / "out.parquet")
