import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness import machine
from benchmarks.peers import place
from benchmarks.peers.place import AUTOGROUP, Place, eager


def test_a_process_begins_in_its_place() -> None:
    core = machine.cores()[1]
    told = subprocess.run(
        [sys.executable, "-c", "import os; print(os.sched_getaffinity(0), os.sched_getscheduler(0))"],
        preexec_fn=Place(core).take, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.split("} ") == [f"{{{core}", f"{os.SCHED_OTHER}\n"]


def test_eagerness_ends_with_its_block() -> None:
    def state() -> tuple[int, str]:
        return os.getpriority(os.PRIO_PROCESS, 0), AUTOGROUP.read_text() if AUTOGROUP.exists() else ""

    before = state()
    with eager() as granted:
        assert granted == (state() != before)
    assert state() == before


@pytest.mark.parametrize("told", ["", None])
def test_a_session_without_a_group_is_left_as_it_is(
    told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "autogroup"
    if told is not None:
        group.write_text(told)
    monkeypatch.setattr(place, "AUTOGROUP", group)
    with eager():
        pass
    assert (group.read_text() if group.exists() else None) == told


def test_who_may_not_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    with eager() as granted:
        assert not granted
