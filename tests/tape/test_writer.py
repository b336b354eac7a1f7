"""The writer: what goes in comes out, over rolls, ring laps, and a disk that refuses."""

import errno
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tape.helpers import config, kill, make_rows, put_in_ring, read_all, same
from tradeback.model.errors import ConfigError, StartupError, TapeError
from tradeback.model.record import ROW_BYTES, TICK, empty_rows
from tradeback.tape import writer
from tradeback.tape.reader import RecordsGone, TapeReader
from tradeback.tape.segment import list_segments
from tradeback.tape.writer import Tape


def test_a_new_tape(tmp_path: Path) -> None:
    with Tape.open(tmp_path / "deep" / "tape", config()) as tape:
        assert tape.next_sequence == tape.oldest_sequence == 1
        assert 0 < tape.epoch < 2**32
        assert tape.rows.dtype == TICK
        assert len(tape.rows) == tape.hot_rows == 64
        assert tape.rows_address == tape.rows.ctypes.data
        assert tape.room() == 63
        assert len(tape.read(1, 10)) == 0
        assert tape.notes == ()


@settings(max_examples=40, deadline=None)
@given(
    batches=st.lists(st.integers(0, 70), min_size=1, max_size=30),
    rows_per_segment=st.integers(1, 40),
    hot_rows=st.sampled_from([1, 2, 16, 64, 2048]),
    reopen_after=st.integers(0, 30),
)
def test_round_trip(batches: list[int], rows_per_segment: int, hot_rows: int, reopen_after: int) -> None:
    """Any batches, over any segments and rings, reopened in between: the same records in order."""
    with tempfile.TemporaryDirectory() as folder:
        shape = config(rows_per_segment, hot_rows)
        tape = Tape.open(folder, shape)
        epoch, total = tape.epoch, 0
        for number, size in enumerate(batches):
            assert tape.append(make_rows(size, total + 1)) == total + 1
            total += size
            if number == reopen_after:
                tape.close()
                tape = Tape.open(folder, shape)
        assert (tape.next_sequence, tape.epoch) == (total + 1, epoch)
        wanted = make_rows(total)
        for source in (tape, TapeReader(folder)):
            found = [empty_rows(0)]
            sequence = 1
            while len(rows := source.read(sequence, 50)):
                found.append(rows)
                sequence += len(rows)
            assert same(np.concatenate(found), wanted)
            assert source.next_sequence == total + 1
        for segment in list_segments(Path(folder)):
            assert segment.row_count() <= rows_per_segment
            assert segment.count_intact() == segment.row_count()
        tape.close()


def test_commit_as_a_kernel_does(tmp_path: Path) -> None:
    """Batches written straight into the ring, as large as there is room, many laps and rolls."""
    with Tape.open(tmp_path, config(rows_per_segment=37, hot_rows=16)) as tape:
        total = 0
        for size in [1, 5, 16, 3, 7, 11, 2] * 12:
            count = min(size, tape.room())
            put_in_ring(tape, make_rows(count, total + 1))
            assert tape.commit(count) == total + 1
            total += count
            assert tape.room() == 16 - tape.next_sequence % 16
        assert same(np.concatenate([tape.read(at, 1) for at in range(1, total + 1)]), make_rows(total))


def test_commit_refuses_a_wrong_count(tmp_path: Path) -> None:
    with Tape.open(tmp_path, config(hot_rows=16)) as tape:
        for count in (-1, 17):
            with pytest.raises(ValueError, match="room"):
                tape.commit(count)
        assert tape.commit(0) == 1
        assert tape.append(make_rows(3)) == 1
        assert same(tape.read(1, 9), make_rows(3))


def test_a_record_is_on_file_when_commit_returns(tmp_path: Path) -> None:
    with Tape.open(tmp_path, config()) as tape:
        reader = TapeReader(tmp_path)
        for number in range(1, 40):
            tape.append(make_rows(1, number))
            assert same(reader.read(number, 5), make_rows(1, number))
            assert reader.next_sequence == number + 1


def test_read_from_the_ring_and_from_the_disk(tmp_path: Path) -> None:
    """The ring answers for the newest records only as far as a kernel cannot be writing over them."""
    with Tape.open(tmp_path, config(rows_per_segment=10_000, hot_rows=4096)) as tape:
        tape.append(make_rows(6_000))
        tape._reader = None  # type: ignore[assignment]  # the disk would be noticed
        hot = 6_001 + 1_024 - 4_096
        assert same(tape.read(hot, 5_000), make_rows(6_000 - hot + 1, hot))
        with pytest.raises(AttributeError):
            tape.read(hot - 1, 1)
        tape._reader = TapeReader(tmp_path)
        assert same(tape.read(hot - 10, 100), make_rows(100, hot - 10))


def test_views_are_read_one_after_the_other(tmp_path: Path) -> None:
    """Views of the ring end where it ends, and what it does not hold is a copy from the disk."""
    with Tape.open(tmp_path, config(rows_per_segment=10_000, hot_rows=4096)) as tape:
        tape.append(make_rows(6_000))
        at, views = 1, 0
        while at < tape.next_sequence:
            epoch, rows = tape.view_with_epoch(at, 1_000)
            assert epoch == tape.epoch
            assert 0 < len(rows) <= 1_000
            assert same(rows, make_rows(len(rows), at))
            views += np.shares_memory(rows, tape.rows)
            at += len(rows)
        assert views >= 3
        assert len(tape.view_with_epoch(at, 10)[1]) == 0


def test_read_while_being_lapped(tmp_path: Path) -> None:
    """A thread reads just behind the lap; each record it gets is the right one, checksum included."""
    with Tape.open(tmp_path, config(rows_per_segment=5_000, hot_rows=2048)) as tape:
        tape.append(make_rows(2_000))
        wrong: list[int] = []
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                at = max(1, tape.next_sequence - 1_000)
                rows = tape.read(at, 300)
                if not same(rows, make_rows(len(rows), at)):
                    wrong.append(at)

        thread = threading.Thread(target=read)
        thread.start()
        for first in range(2_001, 40_001, 500):
            tape.append(make_rows(500, first))
        done.set()
        thread.join()
        assert wrong == []


def test_lapped_between_the_copy_and_its_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy from the ring is thrown away when the writer has reached it meanwhile."""
    with Tape.open(tmp_path, config(rows_per_segment=10_000, hot_rows=4096)) as tape:
        tape.append(make_rows(2_000))
        is_hot = tape._is_hot
        laps: list[int] = []

        def lapped_at_the_first_look(sequence: int) -> bool:
            if laps:
                return is_hot(sequence)
            laps.append(tape.append(make_rows(4_000, 2_001)))
            return True

        monkeypatch.setattr(tape, "_is_hot", lapped_at_the_first_look)
        assert same(tape.read(500, 100), make_rows(100, 500))
        assert laps == [2_001]


def test_a_ring_that_is_no_power_of_two_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="power of two"):
        Tape.open(tmp_path, config(hot_rows=100))


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    refusal = rf"{tmp_path}.*pid {os.getpid()}.*DATA_DIR"
    with Tape.open(tmp_path, config()), pytest.raises(StartupError, match=refusal):
        Tape.open(tmp_path, config())
    Tape.open(tmp_path, config()).close()


def test_an_unwritable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match=r"cannot be written \(Not a directory\).*DATA_DIR"):
        Tape.open(tmp_path / "file" / "tape", config())

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tradeback.tape.recovery.save_state", refuse)
    with pytest.raises(StartupError, match=r"Read-only file system.*DATA_DIR"):
        Tape.open(tmp_path / "tape", config())
    monkeypatch.undo()
    Tape.open(tmp_path / "tape", config()).close()  # the lock was let go


def test_close_twice_and_use_after_close(tmp_path: Path) -> None:
    tape = Tape.open(tmp_path, config())
    tape.append(make_rows(3))
    tape.close()
    tape.close()
    with pytest.raises(TapeError, match="closed"):
        tape.append(make_rows(1))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with Tape.open(tmp_path, config(rows_per_segment=3)) as tape:
            tape.append(make_rows(20, tape.next_sequence))
    assert len(os.listdir("/proc/self/fd")) == before


def test_retired_records_are_said_to_be_gone(tmp_path: Path) -> None:
    with Tape.open(tmp_path, config(rows_per_segment=10)) as tape:
        tape.append(make_rows(35))
    for segment in list_segments(tmp_path)[:2]:
        segment.path.unlink()
    with Tape.open(tmp_path, config(rows_per_segment=10)) as tape:
        assert tape.oldest_sequence == 21
        with pytest.raises(RecordsGone, match="records 5 to 20 are gone") as caught:
            tape.read(5, 100)
        assert caught.value.oldest_sequence == 21


# A disk that refuses.


class Disk:
    """os.write that accepts `free` more bytes and then refuses."""

    def __init__(self, free: int, error: int = errno.ENOSPC) -> None:
        self.free = free
        self.error = error

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.free == 0:
            raise OSError(self.error, os.strerror(self.error))
        written = os.write(descriptor, data[: self.free])
        self.free -= written
        return written


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Disk]:
    def make(free: int, error: int = errno.ENOSPC) -> Disk:
        made = Disk(free, error)
        monkeypatch.setattr(writer, "_write", made.write)
        return made

    return make


@pytest.mark.parametrize("step", [1, 7, 64, 65, 500])
def test_short_writes_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr(writer, "_write", lambda descriptor, data: os.write(descriptor, data[:step]))
    with Tape.open(tmp_path, config(rows_per_segment=10)) as tape:
        for first in range(1, 60, 7):
            tape.append(make_rows(7, first))
        assert same(np.concatenate([tape.read(at, 1) for at in range(1, 64)]), make_rows(63))


@pytest.mark.parametrize("free", [0, 1, 63, 64, 65, 200, 7 * ROW_BYTES - 1])
def test_nothing_advances_when_the_disk_is_full(
    tmp_path: Path, disk: Callable[[int], Disk], free: int
) -> None:
    """Any number of bytes may have fitted, over a segment's end too; the retry loses and doubles nothing."""
    with Tape.open(tmp_path, config(rows_per_segment=10)) as tape:
        tape.append(make_rows(6))
        epoch = tape.epoch
        full = disk(free)
        put_in_ring(tape, make_rows(7, 7))
        for _ in range(3):
            with pytest.raises(TapeError, match=r"No space left.*retention_bytes"):
                tape.commit(7)
            assert tape.next_sequence == 7
            assert len(tape.read(7, 10)) == 0
        assert tape.counters.write_errors >= 3
        full.free = 1 << 30
        assert tape.commit(7) == 7
        tape.append(make_rows(20, 14))
        assert tape.epoch == epoch
        assert sorted(read_all(TapeReader(tmp_path))) == [(epoch, at) for at in range(1, 34)]
        assert same(np.concatenate([tape.read(at, 1) for at in range(1, 34)]), make_rows(33))


@settings(max_examples=60, deadline=None)
@given(
    free=st.integers(0, 12 * ROW_BYTES),
    offered=st.integers(1, 12),
    later=st.integers(1, 12),
    rows_per_segment=st.integers(1, 12),
    killed=st.booleans(),
)
def test_other_records_after_a_failed_write_never_share_a_name(
    free: int, offered: int, later: int, rows_per_segment: int, killed: bool
) -> None:
    """What a reader of the files saw under (epoch, sequence) stays that, whatever is committed next."""
    shape = config(rows_per_segment, hot_rows=32)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        tape = Tape.open(folder, shape)
        tape.append(make_rows(4))
        full = Disk(free)
        patch.setattr(writer, "_write", full.write)
        put_in_ring(tape, make_rows(offered, 5))
        try:
            tape.commit(offered)
        except TapeError:
            assert tape.next_sequence == 5
        seen = read_all(TapeReader(folder))
        full.free = 1 << 30
        if killed:
            kill(tape)
            tape = Tape.open(folder, shape)
        first = tape.next_sequence
        put_in_ring(tape, make_rows(later, 1_000))
        tape.commit(later)
        tape.append(make_rows(5, 2_000))
        now = read_all(TapeReader(folder))
        assert [name for name in seen if name in now and now[name] != seen[name]] == []
        assert sorted(sequence for _, sequence in now) == list(range(1, tape.next_sequence))
        assert same(tape.read(first, 1), make_rows(1, 1_000))
        tape.close()


def test_smaller_batches_after_a_failed_write(tmp_path: Path, disk: Callable[[int], Disk]) -> None:
    """A caller who retries the same records in smaller portions keeps the epoch."""
    with Tape.open(tmp_path, config(rows_per_segment=4)) as tape:
        epoch = tape.epoch
        full = disk(8 * ROW_BYTES + 5)
        put_in_ring(tape, make_rows(12))
        with pytest.raises(TapeError):
            tape.commit(12)
        full.free = 1 << 30
        for at in range(1, 13, 3):
            assert tape.commit(3) == at
        tape.append(make_rows(9, 13))
        assert tape.epoch == epoch
        assert sorted(read_all(TapeReader(tmp_path))) == [(epoch, at) for at in range(1, 22)]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EROFS, "mount it writable"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EIO, "check it"),
        (errno.EPERM, "permissions"),
    ],
)
def test_the_remedy_is_named(tmp_path: Path, disk: Callable[..., Disk], number: int, remedy: str) -> None:
    with Tape.open(tmp_path, config()) as tape:
        disk(0, number)
        with pytest.raises(TapeError, match=remedy):
            tape.append(make_rows(1))


def test_a_segment_that_cannot_be_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The roll fails: nothing advanced, and the next commit rolls."""
    with Tape.open(tmp_path, config(rows_per_segment=5)) as tape:
        tape.append(make_rows(3))

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "rename", refuse)
        put_in_ring(tape, make_rows(4, 4))
        with pytest.raises(TapeError, match="No space left"):
            tape.commit(4)
        assert tape.next_sequence == 4
        monkeypatch.undo()
        assert tape.commit(4) == 4
        assert same(np.concatenate([tape.read(at, 1) for at in range(1, 8)]), make_rows(7))
    assert not list(tmp_path.glob(".*"))


def test_records_left_ahead_by_a_failed_commit_are_not_indexed(
    tmp_path: Path, disk: Callable[[int], Disk]
) -> None:
    """An indexed segment may be mapped by readers, and these records may yet be cut away."""
    with Tape.open(tmp_path, config(rows_per_segment=5, sync_interval_s=0.001)) as tape:
        full = disk(5 * ROW_BYTES)
        put_in_ring(tape, make_rows(7))
        with pytest.raises(TapeError):
            tape.commit(7)
        first, _ = list_segments(tmp_path)
        with tape._keeper.lock:
            tape._keeper._round()
        assert not first.index_path.exists()
        full.free = 1 << 30
        tape.commit(7)
        with tape._keeper.lock:
            tape._keeper._round()
        assert first.index_path.exists()
