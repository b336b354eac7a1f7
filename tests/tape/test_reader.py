"""Reading from another process: order, checksums, retention, new segments, new epochs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tape.helpers import config, flip, kill, make_rows, newest_file, same
from tradeback.model.errors import TapeError
from tradeback.tape.reader import RecordsGone, TapeReader
from tradeback.tape.segment import HEADER_BYTES, list_segments, offset_of
from tradeback.tape.writer import Tape

FOLLOWER = """
import json, sys
import numpy as np
from tests.tape.helpers import make_rows, same
from tradeback.tape.cursor import Cursor
from tradeback.tape.reader import TapeReader
assert "numba" not in sys.modules

cursor = Cursor(TapeReader(sys.argv[1]), 1)
last, wrong, epochs = int(sys.argv[2]), [], set()
print("ready", flush=True)
while cursor.sequence <= last:
    at = cursor.sequence
    rows = cursor.next(1_000)
    if not same(rows, make_rows(len(rows), at)):
        wrong.append(at)
    epochs.add(cursor.epoch)
print(json.dumps({"sequence": cursor.sequence, "wrong": wrong, "epochs": sorted(epochs)}))
"""


def test_a_follower_in_another_process(tmp_path: Path) -> None:
    """It keeps up through hundreds of rolls and sees every record once, in order, whole."""
    total = 60_000
    with Tape.open(tmp_path, config(rows_per_segment=150, hot_rows=4096, sync_interval_s=0.002)) as tape:
        process = subprocess.Popen(
            [sys.executable, "-c", FOLLOWER, str(tmp_path), str(total)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            first = 1
            while first <= total:
                count = min(1 + first * 7919 % 400, total + 1 - first)
                tape.append(make_rows(count, first))
                first += count
            found = json.loads(process.stdout.read())
        assert process.returncode == 0
        assert found == {"sequence": total + 1, "wrong": [], "epochs": [tape.epoch]}


def test_no_tape(tmp_path: Path) -> None:
    with pytest.raises(TapeError, match="there is no folder"):
        TapeReader(tmp_path / "none")
    with pytest.raises(TapeError, match="there is no tape"):
        TapeReader(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(TapeError, match="there is no folder"):
        TapeReader(tmp_path / "file" / "tape")


def test_an_empty_tape(tmp_path: Path) -> None:
    with Tape.open(tmp_path, config()) as tape:
        reader = TapeReader(tmp_path)
        assert (reader.oldest_sequence, reader.next_sequence) == (1, 1)
        epoch, rows = reader.read_with_epoch(1, 10)
        assert (epoch, len(rows)) == (tape.epoch, 0)


def test_segments_and_positions(tmp_path: Path) -> None:
    with Tape.open(tmp_path, config()) as tape:
        tape.append(make_rows(25))
        reader = TapeReader(tmp_path)
        assert [segment.first for segment in reader.segments()] == [1, 11, 21]
        assert (reader.oldest_sequence, reader.next_sequence) == (1, 26)
        assert len(reader.read(26, 10)) == len(reader.read(99, 10)) == len(reader.read(3, 0)) == 0
        tape.append(make_rows(25, 26))
        assert [segment.first for segment in reader.segments()] == [1, 11, 21, 31, 41]
        assert reader.next_sequence == 51


@pytest.mark.parametrize("torn", [1, 63, 64, 100, 128])
def test_a_torn_tail_is_not_shown(tmp_path: Path, torn: int) -> None:
    """Bytes behind the last good record, be they a part of one or whole but wrong."""
    with Tape.open(tmp_path, config()) as tape:
        tape.append(make_rows(14))
        with newest_file(tmp_path).open("ab") as file:
            file.write(os.urandom(torn))
        reader = TapeReader(tmp_path)
        assert reader.next_sequence == 15
        assert same(reader.read(12, 100), make_rows(3, 12))
        assert len(reader.read(15, 100)) == 0
        os.truncate(newest_file(tmp_path), offset_of(4))


def test_a_damaged_record_in_a_sealed_segment(tmp_path: Path) -> None:
    with Tape.open(tmp_path, config()) as tape:
        tape.append(make_rows(35))
    path = list_segments(tmp_path)[1].path
    flip(path, offset_of(4))
    reader = TapeReader(tmp_path)
    assert same(reader.read(11, 100), make_rows(4, 11))
    with pytest.raises(TapeError, match=r"record 15 .*tape verify"):
        reader.read(15, 100)
    assert same(reader.read(16, 100), make_rows(5, 16))


def test_a_missing_segment_and_a_short_one(tmp_path: Path) -> None:
    with Tape.open(tmp_path, config()) as tape:
        tape.append(make_rows(45))
    segments = list_segments(tmp_path)
    segments[2].path.unlink()
    os.truncate(segments[0].path, HEADER_BYTES)
    reader = TapeReader(tmp_path)
    with pytest.raises(TapeError, match="records 21 to 30 are missing"):
        reader.read(21, 5)
    with pytest.raises(TapeError, match="records 1 to 10 are missing"):
        reader.read(1, 5)
    assert same(reader.read(31, 5), make_rows(5, 31))


def test_a_segment_that_vanishes_under_the_reader(tmp_path: Path) -> None:
    """Retention removes files at any moment, also between listing and reading."""
    with Tape.open(tmp_path, config()) as tape:
        tape.append(make_rows(35))
        reader = TapeReader(tmp_path)
        known = reader.segments()
        for segment in known[:2]:
            segment.path.unlink()
        reader._listed, reader._listed_at_ns = known, 1 << 62
        reader._listed_mtime_ns = tmp_path.stat().st_mtime_ns
        with pytest.raises(RecordsGone, match=r"records 3 to 20 are gone.*go on at 21"):
            reader.read(3, 10)
        assert same(reader.read(21, 10), make_rows(10, 21))


def test_a_roll_within_the_grain_of_the_folders_time_stamp(tmp_path: Path) -> None:
    """Two changes of the folder may carry the same time stamp; the second must not be missed."""
    with Tape.open(tmp_path, config(rows_per_segment=2)) as tape:
        reader = TapeReader(tmp_path)
        for first in range(1, 200, 4):
            tape.append(make_rows(2, first))
            assert same(reader.read(first, 5), make_rows(2, first))
            before_ns = tmp_path.stat().st_mtime_ns
            tape.append(make_rows(2, first + 2))
            os.utime(tmp_path, ns=(before_ns, before_ns))
            assert same(reader.read(first + 2, 5), make_rows(2, first + 2))


def test_read_stops_at_an_epochs_end(tmp_path: Path) -> None:
    tape = Tape.open(tmp_path, config(rows_per_segment=100))
    tape.append(make_rows(5))
    kill(tape)
    (tmp_path / "state.json").unlink()
    with Tape.open(tmp_path, config(rows_per_segment=100)) as again:
        again.append(make_rows(5, 6))
        for source in (again, TapeReader(tmp_path)):
            assert source.read_with_epoch(3, 100)[0] == tape.epoch
            assert same(source.read(3, 100), make_rows(3, 3))
            assert source.read_with_epoch(6, 100)[0] == again.epoch
            assert same(source.read(6, 100), make_rows(5, 6))
        assert TapeReader(tmp_path).epochs() == [(tape.epoch, 1), (again.epoch, 6)]
