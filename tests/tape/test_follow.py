"""tape/follow: a tape that keeps another one's epochs and sequences, whatever crashed."""

import os
from pathlib import Path

import numpy as np
import pytest

from tradeback.model.config import TapeConfig
from tradeback.model.errors import StartupError
from tradeback.model.record import ROW_BYTES, TRADE, Rows, empty_rows
from tradeback.tape import follow
from tradeback.tape.follow import Place
from tradeback.tape.segment import HEADER_BYTES, list_segments
from tradeback.tape.state import load_state, save_state
from tradeback.tape.writer import Tape

CONFIG = TapeConfig(hot_rows=1024, segment_bytes=HEADER_BYTES + 100 * ROW_BYTES)
E1, E2 = 0x11111111, 0x22222222


def rows_of(count: int, first_id: int = 1) -> Rows:
    rows = empty_rows(count)
    rows["kind"], rows["symbol_id"], rows["id"] = TRADE, 1, np.arange(first_id, first_id + count)
    return rows


def ids(tape: Tape, first: int) -> list[int]:
    found: list[int] = []
    while True:
        rows = tape.read(first + len(found), 1_000)
        if not len(rows):
            return found
        found += rows["id"].tolist()


def fill(folder: Path, place: Place, count: int) -> None:
    """A tape that begins at `place` and holds `count` records."""
    follow.begin(folder, place)
    with Tape.open(folder, CONFIG) as tape:
        assert (tape.epoch, tape.next_sequence, tape.notes) == (*place, ())
        assert tape.append(rows_of(count)) == place.sequence


def crash(folder: Path) -> None:
    """As after a crash of the machine: no clean end, another boot."""
    state = load_state(folder)
    assert state is not None
    changed = {name: getattr(state, name) for name in state.__struct_fields__}
    save_state(folder, type(state)(**{**changed, "clean": False, "boot_id": "another"}))


def test_there_is_none_yet(tmp_path: Path) -> None:
    assert follow.settle(tmp_path / "tape") is None
    (tmp_path / "tape").mkdir()
    assert follow.settle(tmp_path / "tape") is None


def test_it_begins_where_it_is_told(tmp_path: Path) -> None:
    fill(tmp_path, Place(E1, 5_000), 250)
    assert follow.settle(tmp_path) == Place(E1, 5_250)
    with Tape.open(tmp_path, CONFIG) as tape:
        assert (tape.epoch, tape.oldest_sequence, tape.next_sequence) == (E1, 5_000, 5_250)
        assert ids(tape, 5_000) == list(range(1, 251))
        assert tape.resume(E1, 5_100) == (E1, 5_100)


def test_an_empty_one_stays_where_it_was_begun(tmp_path: Path) -> None:
    follow.begin(tmp_path, Place(E1, 77))
    for _ in range(2):
        assert follow.settle(tmp_path) == Place(E1, 77)
        with Tape.open(tmp_path, CONFIG) as tape:
            assert (tape.epoch, tape.next_sequence) == (E1, 77)


@pytest.mark.parametrize("torn", [0, 1, 63, 64, 150])
def test_a_crash_begins_no_epoch(tmp_path: Path, torn: int) -> None:
    fill(tmp_path, Place(E1, 1), 250)
    last = list_segments(tmp_path)[-1]
    if torn:
        os.truncate(last.path, last.size() - torn)
    crash(tmp_path)
    end = 251 - -(-torn // ROW_BYTES)
    assert follow.settle(tmp_path) == Place(E1, end)
    with Tape.open(tmp_path, CONFIG) as tape:
        assert (tape.epoch, tape.next_sequence, tape.notes) == (E1, end, ())
        assert ids(tape, 1) == list(range(1, end))


def test_damage_is_cut_and_what_follows_it_too(tmp_path: Path) -> None:
    fill(tmp_path, Place(E1, 1), 450)
    crash(tmp_path)
    state = load_state(tmp_path)
    assert state is not None
    changed = {name: getattr(state, name) for name in state.__struct_fields__}
    save_state(tmp_path, type(state)(**{**changed, "synced_before": 101}))
    second = list_segments(tmp_path)[1]
    with second.path.open("r+b") as file:
        file.seek(HEADER_BYTES + 30 * ROW_BYTES + 5)
        file.write(b"\xff\xff")
    assert follow.settle(tmp_path) == Place(E1, 131)
    with Tape.open(tmp_path, CONFIG) as tape:
        assert (tape.epoch, tape.next_sequence, tape.notes) == (E1, 131, ())
        assert ids(tape, 1) == list(range(1, 131))


@pytest.mark.parametrize("at", [251, 250, 201, 120, 2])
def test_the_author_begins_an_epoch(tmp_path: Path, at: int) -> None:
    fill(tmp_path, Place(E1, 1), 250)
    follow.turn(tmp_path, Place(E2, at))
    assert follow.settle(tmp_path) == Place(E2, at)
    with Tape.open(tmp_path, CONFIG) as tape:
        assert (tape.epoch, tape.next_sequence, tape.notes) == (E2, at, ())
        tape.append(rows_of(30, 1_000))
        assert ids(tape, 1) == [*range(1, at), *range(1_000, 1_030)]
        assert tape.resume(E1, at) == (E2, at)
        assert tape.resume(E1, at - 1) == (E1, at - 1)
    assert follow.settle(tmp_path) == Place(E2, at + 30)


def test_a_turn_beyond_the_tape_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, Place(E1, 100), 20)
    for sequence in (122, 100, 1):
        with pytest.raises(ValueError, match="does not reach"):
            follow.turn(tmp_path, Place(E2, sequence))
    follow.begin(tmp_path, Place(E2, 900))
    with Tape.open(tmp_path, CONFIG) as tape:
        assert (tape.epoch, tape.oldest_sequence, tape.next_sequence) == (E2, 900, 900)


def test_the_folder_of_a_writer_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path, Place(E1, 1), 10)
    with Tape.open(tmp_path, CONFIG), pytest.raises(StartupError, match="another process"):
        follow.settle(tmp_path)
