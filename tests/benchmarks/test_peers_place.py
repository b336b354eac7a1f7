import os
import subprocess
import sys

import pytest

from benchmarks.harness import machine
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


def test_who_may_not_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    with eager() as granted:
        assert not granted
