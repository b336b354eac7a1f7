"""A supervisor that was killed leaves an engine that is still ending: a new run waits for it."""

import time
from pathlib import Path

from tradeback.processes.spawn import MODULE

WAIT_S = 10.0
STEP_S = 0.02


def wait_for_orphan(data_dir: Path, wait_s: float = WAIT_S) -> bool:
    """Until no engine without a supervisor writes the tape in `data_dir`. False when it takes too long.

    It holds the tape and the port, and is gone when its lines and clients are closed.
    """
    end = time.monotonic() + wait_s
    while _is_orphan(_holder(data_dir / "tape" / "lock")):
        if time.monotonic() > end:
            return False
        time.sleep(STEP_S)
    return True


def _holder(lock: Path) -> int:
    """The process that has opened the tape last; 0 when that is not known."""
    try:
        return int(lock.read_text().strip() or 0)
    except (OSError, ValueError):
        return 0


def _is_orphan(pid: int) -> bool:
    """Whether it is a child of a run whose supervisor (its last argument) is no longer its parent."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
        if MODULE.encode() not in words or not words[-1].isdigit():
            return False
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        return words[-1].decode() != parent
    except (OSError, IndexError):
        return False
