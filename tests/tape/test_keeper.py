"""The background thread: sync, seal, index, retention, errors."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tape.helpers import config, flip, kill, make_rows, newest_file, same
from tradeback.model.config import TapeConfig
from tradeback.model.errors import TapeError
from tradeback.tape import keeper
from tradeback.tape.index import read_index
from tradeback.tape.reader import TapeReader
from tradeback.tape.segment import HEADER_BYTES, list_segments, offset_of
from tradeback.tape.state import load_state
from tradeback.tape.writer import Tape

SEGMENT = offset_of(10)


def wait_until(holds: Callable[[], bool]) -> None:
    """Yield to the keeper's thread until it has done it."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "the keeper did not do it within 10 s"
        time.sleep(0.001)


def spare_of(tape: Tape) -> int | None:
    """First sequence of the segment that lies ready."""
    spares = list(tape._keeper._spares)
    return spares[0].segment.first if spares else None


def quick(**other: Any) -> TapeConfig:
    """Segments of ten records, and a keeper that looks every millisecond."""
    return config(sync_interval_s=0.001, **other)


def test_everything_is_synced_and_counted(tmp_path: Path) -> None:
    with Tape.open(tmp_path, quick()) as tape:
        tape.append(make_rows(35))
        counters = tape.counters
        wait_until(lambda: counters.synced_sequence == 36)
        assert counters.syncs >= 1
        assert 0 < counters.sync_ns_last <= counters.sync_ns_max
        assert counters.rolls == 3
        assert counters.roll_ns_max > 0
        wait_until(lambda: counters.segment_bytes == 3 * SEGMENT)
        assert counters.segments == 4
        assert tape.bytes_held == 3 * SEGMENT + offset_of(5)
        assert tape.bytes_held == sum(segment.size() for segment in list_segments(tmp_path))
        wait_until(lambda: (load_state(tmp_path) or pytest.fail("no state")).synced_before == 31)
        syncs = counters.syncs
        time.sleep(0.02)
        assert counters.syncs == syncs, "nothing new, nothing to sync"


def test_sealed_segments_are_indexed(tmp_path: Path) -> None:
    with Tape.open(tmp_path, quick()) as tape:
        tape.append(make_rows(35))
        sealed = list_segments(tmp_path)[:-1]
        wait_until(lambda: all(read_index(segment) is not None for segment in sealed))
        assert not list_segments(tmp_path)[-1].index_path.exists()


@pytest.mark.parametrize("damage", ["missing", "torn", "flipped"])
def test_a_bad_index_is_made_anew_when_the_tape_is_opened(tmp_path: Path, damage: str) -> None:
    with Tape.open(tmp_path, quick()) as tape:
        tape.append(make_rows(35))
        segment = list_segments(tmp_path)[1]
        wait_until(lambda: read_index(segment) is not None)
    good = segment.index_path.read_bytes()
    bad = {"torn": good[:-3], "flipped": bytes([*good[:150], good[150] ^ 1, *good[151:]])}.get(damage)
    segment.index_path.unlink()
    if bad is not None:
        segment.index_path.write_bytes(bad)
    with Tape.open(tmp_path, quick()):
        wait_until(lambda: read_index(segment) is not None)
    assert segment.index_path.read_bytes() == good


def test_unsynced_segments_of_a_killed_session_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a later crash of the machine would lose them although the next session ended cleanly."""
    monkeypatch.setattr(keeper.Keeper, "_seal_and_sync", lambda self: None)
    tape = Tape.open(tmp_path, quick())
    tape.append(make_rows(35))
    kill(tape)
    monkeypatch.undo()
    synced: set[str] = set()
    real = os.fdatasync

    def note(descriptor: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", note)
    Tape.open(tmp_path, config()).close()
    assert {str(segment.path) for segment in list_segments(tmp_path)} <= synced


def test_retention_by_bytes(tmp_path: Path) -> None:
    with Tape.open(tmp_path, quick(retention_bytes=3 * SEGMENT)) as tape:
        tape.append(make_rows(85))
        wait_until(lambda: tape.counters.segments_retired == 5)
        assert tape.oldest_sequence == 51
        assert [segment.first for segment in list_segments(tmp_path)] == [51, 61, 71, 81]
        wait_until(lambda: len(list(tmp_path.glob("*.index"))) == 3)
        with pytest.raises(TapeError, match="records 1 to 50 are gone"):
            tape.read(1, 5)
        assert same(TapeReader(tmp_path).read(51, 10), make_rows(10, 51))
    with Tape.open(tmp_path, config()) as tape:
        assert (tape.oldest_sequence, tape.next_sequence) == (51, 86)


def test_retention_by_age_never_takes_the_current_segment(tmp_path: Path) -> None:
    with Tape.open(tmp_path, config()) as tape:
        tape.append(make_rows(35))
    for segment in list_segments(tmp_path):
        os.utime(segment.path, (time.time() - 5_000, time.time() - 5_000))
    with Tape.open(tmp_path, quick(retention_age_s=6_000.0)) as tape:
        wait_until(lambda: tape.counters.syncs > 0)
        assert tape.oldest_sequence == 1
    with Tape.open(tmp_path, quick(retention_age_s=3_000.0)) as tape:
        wait_until(lambda: tape.counters.segments_retired == 3)
        assert tape.oldest_sequence == 31
        assert same(tape.read(31, 10), make_rows(5, 31))


def test_killed_during_retention(tmp_path: Path) -> None:
    """The segment is gone, its index not yet: the leftover hurts nobody and goes."""
    with Tape.open(tmp_path, quick()) as tape:
        tape.append(make_rows(35))
        wait_until(lambda: len(list(tmp_path.glob("*.index"))) == 3)
    list_segments(tmp_path)[0].path.unlink()
    with Tape.open(tmp_path, config()) as tape:
        assert tape.oldest_sequence == 11
        assert len(list(tmp_path.glob("*.index"))) == 2


def test_what_fails_is_counted_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = True

    def flaky(descriptor: int) -> None:
        if failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Tape.open(tmp_path, quick()) as tape:
        wait_until(lambda: spare_of(tape) == 11)
        monkeypatch.setattr(os, "fdatasync", flaky)
        tape.append(make_rows(35))
        wait_until(lambda: tape.counters.keeper_errors > 3)
        assert "Input/output error" in tape.counters.keeper_error_last
        assert tape.counters.synced_sequence < 36
        assert same(tape.read(1, 10), make_rows(10))
        failing = False
        wait_until(lambda: tape.counters.synced_sequence == 36)
        wait_until(lambda: tape.counters.keeper_error_last == "")


def test_an_end_that_could_not_be_synced_is_not_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape = Tape.open(tmp_path, config())
    tape.append(make_rows(5))

    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(TapeError, match="Input/output error"):
        tape.close()
    monkeypatch.undo()
    state = load_state(tmp_path)
    assert state is not None
    assert not state.clean
    Tape.open(tmp_path, config()).close()  # unlocked all the same


def test_a_damaged_sealed_segment_is_reported(tmp_path: Path) -> None:
    with Tape.open(tmp_path, config()) as tape:
        tape.append(make_rows(35))
    segment = list_segments(tmp_path)[1]
    segment.index_path.unlink(missing_ok=True)
    flip(segment.path, HEADER_BYTES + 70)
    with Tape.open(tmp_path, quick()) as tape:
        wait_until(lambda: tape.counters.segments_damaged == 1)
        assert "record 12 " in tape.counters.damage_last
        wait_until(lambda: read_index(list_segments(tmp_path)[2]) is not None)


def test_a_spare_is_used_and_a_stale_one_removed(tmp_path: Path) -> None:
    with Tape.open(tmp_path, config()) as tape:
        wait_until(lambda: spare_of(tape) == 11)
        spare = tape._keeper._spares[0]
        assert TapeReader(tmp_path).segments()[-1].first == 1, "readers do not see it yet"
        inode = spare.temporary.stat().st_ino
        tape.append(make_rows(35))
        assert list_segments(tmp_path)[1].path.stat().st_ino == inode
        wait_until(lambda: spare_of(tape) == 41)
    assert not list(tmp_path.glob(".*"))
    assert newest_file(tmp_path).exists()
