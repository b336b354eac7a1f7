"""state.json and the lock."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from tradeback.model.errors import StartupError
from tradeback.tape.state import State, load_state, lock_folder, new_epoch, save_state

STATE = State(epoch=7, epochs=((3, 1), (7, 12)), boot_id="b", clean=True, synced_before=5)


def test_round_trip(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    save_state(tmp_path, STATE)
    assert load_state(tmp_path) == STATE
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_every_cut_of_the_file_is_no_state(tmp_path: Path) -> None:
    save_state(tmp_path, STATE)
    raw = (tmp_path / "state.json").read_bytes()
    for size in range(len(raw.rstrip())):
        (tmp_path / "state.json").write_bytes(raw[:size])
        assert load_state(tmp_path) is None


def test_a_failed_replacement_keeps_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path, STATE)

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        save_state(tmp_path, State(epoch=8, epochs=((8, 1),), boot_id="", clean=False, synced_before=1))
    assert load_state(tmp_path) == STATE


def test_new_epochs_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = iter([0, 5, 6, 5, 9])
    monkeypatch.setattr("tradeback.tape.state.secrets.randbits", lambda bits: next(dice) if bits == 32 else 1)
    assert new_epoch([5, 6]) == 9


def test_lock_excludes_and_names_the_holder(tmp_path: Path) -> None:
    descriptor = lock_folder(tmp_path / "tape")
    with pytest.raises(StartupError, match=f"pid {os.getpid()}"):
        lock_folder(tmp_path / "tape")
    os.close(descriptor)
    os.close(lock_folder(tmp_path / "tape"))


def test_a_dead_holders_pid_does_not_lock(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("1\n")
    descriptor = lock_folder(tmp_path)
    with (tmp_path / "lock").open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    os.close(descriptor)
