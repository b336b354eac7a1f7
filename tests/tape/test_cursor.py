"""Cursors: every record once, in order, across rolls, restarts and lost tails."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tape.helpers import config, kill, make_rows, newest_file, same
from tradeback.tape.cursor import Cursor, Source
from tradeback.tape.reader import RecordsGone, TapeReader
from tradeback.tape.segment import list_segments, offset_of
from tradeback.tape.writer import Tape


@pytest.fixture(params=["tape", "reader"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Tape, Source]]:
    """A tape, and the source that a cursor reads: the tape itself or a reader of its files."""
    with Tape.open(tmp_path, config(rows_per_segment=10, hot_rows=2048)) as tape:
        yield tape, (tape if request.param == "tape" else TapeReader(tmp_path))


def test_follows_the_writer(both: tuple[Tape, Source]) -> None:
    tape, source = both
    cursor = Cursor(source, 1)
    for first in range(1, 3_000, 37):
        tape.append(make_rows(37, first))
        while len(rows := cursor.next(20)):
            assert same(rows, make_rows(len(rows), cursor.sequence - len(rows)))
        assert cursor.sequence == tape.next_sequence
        assert cursor.epoch == tape.epoch


def test_starts_where_it_is_told(both: tuple[Tape, Source]) -> None:
    tape, source = both
    tape.append(make_rows(30))
    assert same(Cursor(source, 17).next(2), make_rows(2, 17))
    assert same(Cursor(source, 17, tape.epoch).next(2), make_rows(2, 17))
    assert same(Cursor(source, 17, 12345).next(2), make_rows(2, 17))
    ahead = Cursor(source, 31)
    assert len(ahead.next(9)) == 0
    tape.append(make_rows(1, 31))
    assert same(ahead.next(9), make_rows(1, 31))


def lose_tail(folder: Path, keep: int) -> tuple[int, Tape]:
    """16 records, then a machine crash that keeps `keep`, then the tape opened again: (old epoch, tape)."""
    tape = Tape.open(folder, config(rows_per_segment=100))
    tape.append(make_rows(16))
    kill(tape)
    os.truncate(newest_file(folder), offset_of(keep))
    (folder / "state.json").unlink()
    return tape.epoch, Tape.open(folder, config(rows_per_segment=100))


@pytest.mark.parametrize("keep", [10, 15, 16])
@pytest.mark.parametrize("grown", [0, 3, 20])
def test_stored_position_behind_a_lost_tail(tmp_path: Path, keep: int, grown: int) -> None:
    """A durable reader had seen 16 records; the tape now holds fewer of them, and others behind."""
    old, tape = lose_tail(tmp_path, keep)
    with tape:
        tape.append(make_rows(grown, 5_000))
        for source in (tape, TapeReader(tmp_path)):
            cursor = Cursor(source, 17, old)
            found = _ids(cursor)
            assert found == list(range(5_000, 5_000 + grown))
            assert (cursor.epoch, cursor.sequence) == (tape.epoch, keep + 1 + grown)


def _ids(cursor: Cursor) -> list[int]:
    ids: list[int] = []
    while len(rows := cursor.next(4)):
        ids += rows["id"].tolist()
    return ids


def test_an_epoch_change_under_a_live_cursor(tmp_path: Path) -> None:
    """The reader's process lives on while the tape loses a tail and begins a new epoch."""
    tape = Tape.open(tmp_path, config(rows_per_segment=100))
    tape.append(make_rows(16))
    cursor = Cursor(TapeReader(tmp_path), 1)
    assert _ids(cursor) == list(range(1, 17))
    kill(tape)
    os.truncate(newest_file(tmp_path), offset_of(12))
    (tmp_path / "state.json").unlink()
    with Tape.open(tmp_path, config(rows_per_segment=100)) as again:
        assert _ids(cursor) == []
        again.append(make_rows(30, 700))
        assert _ids(cursor) == list(range(700, 730))
        assert (cursor.epoch, cursor.sequence) == (again.epoch, 43)


def test_an_epoch_change_without_loss(tmp_path: Path) -> None:
    old, tape = lose_tail(tmp_path, 16)
    with tape:
        tape.append(make_rows(5, 17))
        cursor = Cursor(tape, 1)
        assert _ids(cursor) == list(range(1, 22))
        cursor = Cursor(tape, 9, old)
        assert _ids(cursor) == list(range(9, 22))


def test_retention_overtakes_a_cursor(tmp_path: Path) -> None:
    with Tape.open(tmp_path, config()) as tape:
        tape.append(make_rows(35))
    for segment in list_segments(tmp_path)[:2]:
        segment.path.unlink()
    cursor = Cursor(TapeReader(tmp_path), 3)
    with pytest.raises(RecordsGone, match="records 3 to 20"):
        cursor.next(10)
    assert cursor.skip_gone() == 18
    assert cursor.skip_gone() == 0
    assert _ids(cursor) == list(range(21, 36))
