"""processes/orphans: a new run waits for the engine of a killed one, and for nobody else."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tradeback.processes.orphans import WAIT_S, wait_for_orphan
from tradeback.processes.spawn import MODULE

LIVES = "import sys; print(flush=True); sys.stdin.read()"


@contextmanager
def running(*arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process whose command line looks like a child of a run."""
    command = [sys.executable, "-c", LIVES, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # before, its command line is still that of this test
        yield process
        process.kill()


def held_by(folder: Path, pid: object) -> Path:
    (folder / "tape").mkdir(exist_ok=True)
    (folder / "tape" / "lock").write_text(f"{pid}\n")
    return folder


def test_an_orphan_is_waited_for_until_it_ends(tmp_path: Path) -> None:
    with running(MODULE, "engine", "5", "1") as orphan:  # its parent is this test, not process 1
        assert not wait_for_orphan(held_by(tmp_path, orphan.pid), wait_s=0.05)
        orphan.kill()
        orphan.wait()
        assert wait_for_orphan(tmp_path, wait_s=5)


def test_nobody_else_is_waited_for(tmp_path: Path) -> None:
    with running(MODULE, "engine", "5", str(os.getpid())) as child, running("something", "1") as other:
        began = time.monotonic()
        for pid in (child.pid, other.pid, "", "words", 0, 1 << 22):
            assert wait_for_orphan(held_by(tmp_path, pid))
        assert wait_for_orphan(tmp_path / "none")
        assert time.monotonic() - began < WAIT_S
