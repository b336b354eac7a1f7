"""Which records of a tape a range holds, and which of them need arbitration."""

from pathlib import Path

import numpy as np
import pytest

from tests.tape.helpers import config, make_rows, same
from tradeback.model.errors import StartupError
from tradeback.model.record import (
    AGG,
    GAP,
    LATE,
    QUOTE,
    REPAIRED,
    SEED_BAR,
    STAND_IN,
    TRADE,
    Rows,
    empty_rows,
)
from tradeback.recording.tape_range import TapeSpan, records, runs
from tradeback.tape.reader import TapeReader
from tradeback.tape.writer import Tape

COUNT = 500


def spread_rows() -> Rows:
    """Ten seconds apart, so that a search by time has segments to skip."""
    rows = make_rows(COUNT)
    rows["recv_ns"] = 10**18 + np.arange(COUNT) * 10_000_000_000
    return rows


@pytest.fixture
def reader(tmp_path: Path) -> TapeReader:
    with Tape.open(tmp_path, config(rows_per_segment=32)) as tape:
        tape.append(spread_rows())
    return TapeReader(tmp_path)


def joined(reader: TapeReader, span: TapeSpan, ids: set[int] | None = None) -> Rows:
    return np.concatenate([empty_rows(0), *records(reader, span, ids)])


def test_by_sequence_and_by_time(reader: TapeReader) -> None:
    rows = spread_rows()
    assert same(joined(reader, TapeSpan()), rows)
    assert same(joined(reader, TapeSpan(from_sequence=101, to_sequence=201)), rows[100:200])
    for begin, end in ((0, 10), (37, 300), (499, 500), (120, 121)):
        span = TapeSpan(int(rows["recv_ns"][begin]), int(rows["recv_ns"][end - 1]) + 1)
        assert same(joined(reader, span), rows[begin:end])
    assert len(joined(reader, TapeSpan(from_ns=2 * 10**18))) == 0
    assert len(joined(reader, TapeSpan(to_ns=10**18))) == 0


def test_a_record_with_an_earlier_time_behind_its_place_is_found(tmp_path: Path) -> None:
    """Stand-ins carry their aggregate's receive time."""
    rows = spread_rows()
    rows["recv_ns"] = 10**18 + np.arange(COUNT) * 1_000_000_000
    rows["recv_ns"][100] = rows["recv_ns"][90]
    with Tape.open(tmp_path, config(rows_per_segment=10)) as tape:
        tape.append(rows)
    span = TapeSpan(int(rows["recv_ns"][90]), int(rows["recv_ns"][95]))
    wanted = rows[[90, 91, 92, 93, 94, 100]]
    assert same(joined(TapeReader(tmp_path), span), wanted)


def test_by_symbol(reader: TapeReader) -> None:
    rows = spread_rows()
    assert same(joined(reader, TapeSpan(), {2, 4}), rows[np.isin(rows["symbol_id"], (2, 4))])


def test_what_retention_has_taken_is_told(tmp_path: Path) -> None:
    with Tape.open(tmp_path, config(rows_per_segment=32)) as tape:
        tape.append(spread_rows())
    sorted(tmp_path.glob("*.tape"))[0].unlink()
    with pytest.raises(StartupError, match="--from seq:33"):
        joined(TapeReader(tmp_path), TapeSpan(from_sequence=1))
    assert len(joined(TapeReader(tmp_path), TapeSpan())) == COUNT - 32


def test_runs_keep_the_order_and_part_what_arbitration_must_not_judge() -> None:
    kinds = (TRADE, TRADE, SEED_BAR, AGG, GAP, TRADE, TRADE, TRADE, QUOTE)
    flags = (0, 0, 0, 0, 0, STAND_IN, LATE, REPAIRED, 1)
    rows = empty_rows(len(kinds))
    rows["kind"], rows["flags"], rows["id"] = kinds, flags, range(len(kinds))
    found = list(runs(rows))
    assert [usual for usual, _ in found] == [True, False, True, False, True, False, True]
    assert [part["id"].tolist() for _, part in found] == [[0, 1], [2], [3], [4], [5], [6, 7], [8]]
    assert same(np.concatenate([part for _, part in found]), rows)
