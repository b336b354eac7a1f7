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


GREETING = "tradeback serves "
"""The port opens before the exchange is asked, so a start may be refused after it was greeted."""


def refused(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line with which a start was refused: exit code 2, nothing on stdout, no traceback.

    Progress, the greeting and the log (JSON lines) may stand before it; it is the last line.
    """
    assert done.returncode == 2, done
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("... ", GREETING, "{"))]
    assert len(lines) == 1, done.stderr
    assert done.stderr.splitlines()[-1] == lines[0], done.stderr
    assert lines[0].startswith("tradeback: ")
    return lines[0]
