"""Opening after any end: what was kept stays, what may have been seen is never given another content."""

import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tape.helpers import config, flip, kill, make_rows, newest_file, read_all, restore, same, snapshot
from tradeback.model.errors import StartupError
from tradeback.model.record import ROW_BYTES
from tradeback.tape import recovery, state
from tradeback.tape.reader import TapeReader
from tradeback.tape.segment import HEADER_BYTES, Segment, list_segments, offset_of
from tradeback.tape.writer import Tape

Names = dict[tuple[int, int], bytes]


def write_and_kill(folder: Path, *sizes: int, rows_per_segment: int = 10) -> Names:
    """A tape written in batches of `sizes` by a process that was then killed; what a reader saw."""
    tape = Tape.open(folder, config(rows_per_segment))
    for size in sizes:
        tape.append(make_rows(size, tape.next_sequence))
    kill(tape)
    return read_all(TapeReader(folder))


def reopen_and_append(folder: Path, count: int = 3, rows_per_segment: int = 10) -> tuple[Names, Tape]:
    """Open, append records unlike any before, close; what a reader sees then."""
    with Tape.open(folder, config(rows_per_segment)) as tape:
        tape.append(make_rows(count, 1_000_000))
    return read_all(TapeReader(folder)), tape


def assert_no_name_reused(before: Names, after: Names) -> None:
    assert [name for name in before if name in after and after[name] != before[name]] == []
    sequences = sorted(sequence for _, sequence in after)
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))


@pytest.fixture
def other_boot(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], None]:
    """Call it, and the machine has been started anew."""

    def start() -> None:
        path = tmp_path_factory.mktemp("boot") / "boot_id"
        path.write_text(f"{random.random()}\n")
        monkeypatch.setattr(state, "BOOT_ID_PATH", path)

    return start


def test_killed_between_commits(tmp_path: Path) -> None:
    before = write_and_kill(tmp_path, 4, 9, 1, 20)
    after, tape = reopen_and_append(tmp_path)
    assert tape.notes == ()
    assert before.items() <= after.items()
    assert {epoch for epoch, _ in after} == {tape.epoch}
    assert len(after) == 34 + 3


def test_truncated_at_every_byte(tmp_path: Path) -> None:
    """A killed writer's newest file may end anywhere: whole records are kept, the epoch too."""
    folder, copy = tmp_path / "tape", tmp_path / "copy"
    before = write_and_kill(folder, 12, 4)
    files = snapshot(folder)
    name = newest_file(folder).name
    (epoch,) = {epoch for epoch, _ in before}
    assert len(files[name]) == offset_of(6)
    for size in range(len(files[name]) + 1):
        restore(copy, files | {name: files[name][:size]})
        kept = 10 + max(0, size - HEADER_BYTES) // ROW_BYTES
        visible = read_all(TapeReader(copy)) if size >= HEADER_BYTES else before.keys() - before.keys()
        after, tape = reopen_and_append(copy)
        assert tape.epoch == epoch
        assert {key: after[key] for key in before if key[1] <= kept} == {
            key: value for key, value in before.items() if key[1] <= kept
        }
        assert [key for key in visible if after[key] != before[key]] == []
        assert len(after) == kept + 3
        assert not list(copy.glob("*.cut"))


def test_truncated_at_random_bytes_of_larger_tapes(tmp_path: Path) -> None:
    folder, copy = tmp_path / "tape", tmp_path / "copy"
    write_and_kill(folder, 900, 800, rows_per_segment=1_000)
    files = snapshot(folder)
    name = newest_file(folder).name
    dice = random.Random(11)
    for _ in range(25):
        restore(copy, files | {name: files[name][: dice.randrange(HEADER_BYTES, len(files[name]))]})
        visible = read_all(TapeReader(copy))
        after, _ = reopen_and_append(copy, rows_per_segment=1_000)
        assert visible.items() <= after.items()
        assert_no_name_reused(visible, after)


def test_a_flipped_bit_anywhere_in_the_newest_file(tmp_path: Path) -> None:
    """Bit rot: cut before it, the rest set aside, and a new epoch, for the cut records had been seen."""
    folder, copy = tmp_path / "tape", tmp_path / "copy"
    before = write_and_kill(folder, 12, 4)
    files = snapshot(folder)
    name = newest_file(folder).name
    dice = random.Random(5)
    for byte in range(HEADER_BYTES, len(files[name]), 5):
        raw = bytearray(files[name])
        raw[byte] ^= 1 << dice.randrange(8)
        restore(copy, files | {name: bytes(raw)})
        after, tape = reopen_and_append(copy)
        good = 10 + (byte - HEADER_BYTES) // ROW_BYTES
        assert {key for key in before if key in after} == {key for key in before if key[1] <= good}
        assert_no_name_reused(before, after)
        assert len(after) == good + 3
        assert tape.epoch not in {epoch for epoch, _ in before}
        (aside,) = copy.glob("*.cut")
        whole = (HEADER_BYTES if good == 10 else 0) + ROW_BYTES * (16 - good)
        assert len(aside.read_bytes()) == whole
        assert any("fails its checksum" in note for note in tape.notes)
        assert any(aside.name in note for note in tape.notes)


def test_a_torn_header_is_removed(tmp_path: Path) -> None:
    """A file that was created and never got its header, or a part of it, or only zeros."""
    folder, copy = tmp_path / "tape", tmp_path / "copy"
    before = write_and_kill(folder, 10)
    files = snapshot(folder)
    (epoch,) = {epoch for epoch, _ in before}
    torn = Segment.named(folder, epoch, 11).path.name
    for content in (b"", b"TBKTAPE\n\1", bytes(64), bytes(100)):
        restore(copy, files | {torn: content})
        after, tape = reopen_and_append(copy)
        assert tape.epoch == epoch
        assert before.items() <= after.items()
        assert sorted(sequence for _, sequence in after) == list(range(1, 14))


def test_an_empty_segment_with_a_good_header_goes_on(tmp_path: Path) -> None:
    """Killed between the header and the first record."""
    before = write_and_kill(tmp_path, 10, 1)
    os.truncate(newest_file(tmp_path), HEADER_BYTES)
    after, tape = reopen_and_append(tmp_path)
    assert tape.epoch == next(iter(before))[0]
    assert len(after) == 13


def test_a_full_last_segment_without_successor(tmp_path: Path) -> None:
    """Killed within a batch over two segments: the first half written, the second file not yet made."""
    before = write_and_kill(tmp_path, 10)
    assert len(list_segments(tmp_path)) == 1
    after, tape = reopen_and_append(tmp_path)
    assert before.items() <= after.items()
    assert tape.epoch == next(iter(before))[0]
    assert [segment.first for segment in list_segments(tmp_path)] == [1, 11]


def test_a_damaged_header_of_a_segment_with_records(tmp_path: Path) -> None:
    before = write_and_kill(tmp_path, 16)
    path = newest_file(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[20] ^= 4
    path.write_bytes(raw)
    after, tape = reopen_and_append(tmp_path)
    assert_no_name_reused(before, after)
    assert tape.epoch not in {epoch for epoch, _ in before}
    assert path.with_suffix(".cut").read_bytes() == raw


def test_machine_crash_begins_an_epoch(tmp_path: Path, other_boot: Callable[[], None]) -> None:
    """The tail that the disk lost may have been sent: it may not be replaced under the same epoch."""
    before = write_and_kill(tmp_path, 16)
    os.truncate(newest_file(tmp_path), offset_of(2))
    other_boot()
    after, tape = reopen_and_append(tmp_path)
    assert_no_name_reused(before, after)
    assert max(sequence for _, sequence in after) == 15
    assert tape.epoch not in {epoch for epoch, _ in before}
    assert TapeReader(tmp_path).epochs() == [(next(iter(before))[0], 1), (tape.epoch, 13)]


def test_machine_crash_that_lost_nothing_to_be_seen(tmp_path: Path, other_boot: Callable[[], None]) -> None:
    """Nobody can tell from the files: a new epoch all the same."""
    before = write_and_kill(tmp_path, 16)
    other_boot()
    _, tape = reopen_and_append(tmp_path)
    assert tape.epoch not in {epoch for epoch, _ in before}


def test_clean_end_before_a_reboot_keeps_the_epoch(tmp_path: Path, other_boot: Callable[[], None]) -> None:
    with Tape.open(tmp_path, config()) as tape:
        tape.append(make_rows(16))
    other_boot()
    assert reopen_and_append(tmp_path)[1].epoch == tape.epoch


def test_a_kill_then_a_reboot(tmp_path: Path, other_boot: Callable[[], None]) -> None:
    """The clean end of an earlier session does not count for the one that was killed."""
    with Tape.open(tmp_path, config()) as tape:
        tape.append(make_rows(3))
    kill(Tape.open(tmp_path, config()))
    other_boot()
    assert reopen_and_append(tmp_path)[1].epoch != tape.epoch


def test_no_boot_id_counts_as_another_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "BOOT_ID_PATH", tmp_path / "none")
    before = write_and_kill(tmp_path / "tape", 3)
    assert reopen_and_append(tmp_path / "tape")[1].epoch not in {epoch for epoch, _ in before}


def test_a_sealed_segment_that_never_reached_the_disk(
    tmp_path: Path, other_boot: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine crash may hurt segments before the last; what follows the hole is set aside whole."""
    monkeypatch.setattr("tradeback.tape.keeper.Keeper._seal_and_sync", lambda self: None)
    before = write_and_kill(tmp_path, 35)
    monkeypatch.undo()
    other_boot()
    segments = list_segments(tmp_path)
    os.truncate(segments[1].path, offset_of(4) + 10)
    after, tape = reopen_and_append(tmp_path)
    assert_no_name_reused(before, after)
    assert max(sequence for _, sequence in after) == 17
    assert sorted(path.name for path in tmp_path.glob("*.cut")) == [
        segment.path.with_suffix(".cut").name for segment in segments[2:]
    ]
    assert any("ends before record 21" in note for note in tape.notes)


def test_old_synced_segments_are_not_read_at_opening(tmp_path: Path) -> None:
    """Bit rot in the middle is a matter for `tape verify`; opening must not cut what is good behind it."""
    with Tape.open(tmp_path, config()) as tape:
        tape.append(make_rows(35))
    path = list_segments(tmp_path)[1].path
    flip(path, 500)
    with Tape.open(tmp_path, config()) as again:
        assert (again.next_sequence, again.epoch, again.notes) == (36, tape.epoch, ())


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"version":1}', b"\xff"])
def test_a_lost_state_file_begins_an_epoch(tmp_path: Path, content: bytes | None) -> None:
    before = write_and_kill(tmp_path, 16)
    (tmp_path / "state.json").unlink()
    if content is not None:
        (tmp_path / "state.json").write_bytes(content)
    after, tape = reopen_and_append(tmp_path)
    assert before.items() <= after.items()
    assert tape.epoch not in {epoch for epoch, _ in before}
    assert [first for _, first in TapeReader(tmp_path).epochs()] == [1, 17]


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    Tape.open(tmp_path, config()).close()
    (tmp_path / "state.json").write_bytes(b'{"version":2}')
    files = snapshot(tmp_path)
    with pytest.raises(StartupError, match="install the newer tradeback"):
        Tape.open(tmp_path, config())
    assert {name: snapshot(tmp_path)[name] for name in files if name != "lock"} == {
        name: content for name, content in files.items() if name != "lock"
    }


def test_removed_segments_do_not_bring_names_back(tmp_path: Path) -> None:
    before = write_and_kill(tmp_path, 35)
    for segment in list_segments(tmp_path):
        segment.path.unlink()
    after, tape = reopen_and_append(tmp_path)
    assert not before.keys() & after.keys()
    assert tape.epoch not in {epoch for epoch, _ in before}


class Crash(BaseException):
    """The process ends here."""


STEPS = ("save_state", "_copy", "shorten", "_set_aside", "_create", "sync_folder")


@pytest.mark.parametrize("after_step", [False, True])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("damage", ["bit", "header", "reboot"])
def test_killed_while_recovering(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    other_boot: Callable[[], None],
    step: str,
    after_step: bool,
    damage: str,
) -> None:
    """A second kill before or after any step of the recovery: the next opening still reuses no name."""
    before = write_and_kill(tmp_path, 16)
    path = newest_file(tmp_path)
    raw = bytearray(path.read_bytes())
    if damage == "reboot":
        other_boot()
        raw = raw[: offset_of(4)]
    else:
        raw[offset_of(3) + 8 if damage == "bit" else 9] ^= 1
    path.write_bytes(raw)
    real = getattr(recovery, step)

    def crash(*arguments: object) -> None:
        if after_step:
            real(*arguments)
        raise Crash

    monkeypatch.setattr(recovery, step, crash)
    with contextlib.suppress(Crash):
        Tape.open(tmp_path, config()).close()
    monkeypatch.setattr(recovery, step, real)
    after, _ = reopen_and_append(tmp_path)
    assert_no_name_reused(before, after)
    again, _ = reopen_and_append(tmp_path)
    assert after.items() <= again.items()


def test_leftover_temporary_files_are_removed(tmp_path: Path) -> None:
    write_and_kill(tmp_path, 16)
    (tmp_path / ".state.json.1.tmp").write_bytes(b"half")
    Tape.open(tmp_path, config()).close()
    assert not list(tmp_path.glob(".*"))


def test_larger_segments_after_a_restart(tmp_path: Path) -> None:
    """The segment size is the session's, not the file's: a full file of before is simply continued."""
    before = write_and_kill(tmp_path, 10)
    after, _ = reopen_and_append(tmp_path, 30, rows_per_segment=25)
    assert before.items() <= after.items()
    assert [segment.first for segment in list_segments(tmp_path)] == [1, 26]
    again, _ = reopen_and_append(tmp_path, 2, rows_per_segment=3)
    assert after.items() <= again.items()
    assert [segment.first for segment in list_segments(tmp_path)] == [1, 26, 41]


def test_reopened_content_is_equal(tmp_path: Path) -> None:
    write_and_kill(tmp_path, 16)
    with Tape.open(tmp_path, config()) as tape:
        assert same(tape.read(1, 10), make_rows(10))
        assert same(tape.read(11, 10), make_rows(6, 11))
