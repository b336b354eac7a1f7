"""Starts the `tradeback` command as its user does: in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping

COMMAND = (sys.executable, "-m", "tradeback")
TIMEOUT_S = 60.0


def tradeback(
    *arguments: str, variables: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run it to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, **(variables or {})},
    )


def refused(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line with which a start was refused: exit code 2, nothing on stdout, no traceback."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("... ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("tradeback: ")
    return lines[0]
