"""Starting a child: a fresh interpreter with inherited files, in a session of its own.

A session of its own, so that Ctrl-C of a terminal reaches the supervisor alone, which ends the others in
order. A child whose supervisor is killed sees the end of its control link, and ends.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from tradeback import kernel_cache
from tradeback.processes.setup import Setup, pass_on

MODULE = "tradeback.cli.child"
"""What a child runs: `python -m MODULE NAME SETUP_FD SUPERVISOR_PID`."""


@dataclass(frozen=True, slots=True)
class Started:
    """A running child and the supervisor's end of its control link."""

    process: "subprocess.Popen[bytes]"
    control: socket.socket


def spawn(setup: Setup, files: Sequence[int]) -> Started:
    """Start the child of `setup`, which gets its `control_fd` here; it inherits `files`. Raises OSError."""
    near, far = socket.socketpair()
    try:
        told = pass_on(msgspec.structs.replace(setup, control_fd=far.fileno()))
        try:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", MODULE, setup.name, str(told), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[far.fileno(), told, *files],
                start_new_session=True,
                env=os.environ | {kernel_cache.PREPARED: os.environ.get("NUMBA_CACHE_DIR", "")},
            )
        finally:
            os.close(told)
    except BaseException:
        near.close()
        raise
    finally:
        far.close()
    return Started(process, near)


def how_it_ended(code: int) -> str:
    """An exit code of Popen in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
