"""cli.doctor_tape: a quick look at whole, torn and damaged tapes."""

import os
from pathlib import Path

from tests.tape.helpers import config, make_rows
from tradeback.cli.doctor import Finding
from tradeback.cli.doctor_tape import check_tape
from tradeback.model.config import Config
from tradeback.model.record import ROW_BYTES
from tradeback.tape.segment import HEADER_BYTES, Segment, list_segments
from tradeback.tape.writer import Tape

ROWS = 5_000


def written(folder: Path, rows_per_segment: int = 2_000) -> tuple[Segment, ...]:
    """A tape that ended in order: 5,000 records in files of 2,000."""
    tape = Tape.open(folder / "tape", config(rows_per_segment, hot_rows=8_192))
    tape.append(make_rows(ROWS))
    tape.close()
    return list_segments(folder / "tape")


def spoil(segment: Segment, row: int) -> None:
    """Another price in one record."""
    with segment.path.open("r+b") as file:
        file.seek(HEADER_BYTES + ROW_BYTES * row + 32)
        file.write(b"spoiled!")


def judged(folder: Path) -> Finding:
    return check_tape(Config(data_dir=str(folder)))


def test_no_tape_yet(tmp_path: Path) -> None:
    found = judged(tmp_path / "data")
    assert (found.state, "none yet" in found.found) == ("ok", True)
    assert list(tmp_path.iterdir()) == []


def test_a_whole_one(tmp_path: Path) -> None:
    written(tmp_path)
    found = judged(tmp_path)
    assert found.state == "ok", found
    assert f"records 1 to {ROWS} in 3 files, the newest {ROWS:,} read" in found.found


def test_a_damaged_record(tmp_path: Path) -> None:
    segments = written(tmp_path)
    spoil(segments[0], 7)
    found = judged(tmp_path)
    assert (found.state, "record 8 in" in found.found) == ("fail", True), found
    assert "tradeback tape verify" in found.remedy


def test_damage_deep_in_the_newest_file_is_no_torn_end(tmp_path: Path) -> None:
    (segment,) = written(tmp_path, rows_per_segment=10_000)
    spoil(segment, 100)
    found = judged(tmp_path)
    assert (found.state, "record 101 in" in found.found) == ("fail", True), found


def test_a_torn_end(tmp_path: Path) -> None:
    segments = written(tmp_path)
    spoil(segments[-1], segments[-1].row_count() - 3)
    found = judged(tmp_path)
    assert (found.state, "the last 3 are torn" in found.found) == ("warn", True), found
    assert "start the engine" in found.remedy


def test_a_damaged_header_and_a_missing_file(tmp_path: Path) -> None:
    segments = written(tmp_path)
    with segments[1].path.open("r+b") as file:
        file.write(b"no tape")
    found = judged(tmp_path)
    assert (found.state, "damaged header" in found.found) == ("fail", True), found
    os.remove(segments[1].path)
    found = judged(tmp_path)
    assert (found.state, "does not join" in found.found) == ("fail", True), found


def test_a_tape_of_a_newer_version(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "tape" / "state.json").write_text('{"version":99}')
    for segment in list_segments(tmp_path / "tape"):
        os.remove(segment.path)
    found = judged(tmp_path)
    assert (found.state, "install the newer" in found.remedy) == ("fail", True), found
