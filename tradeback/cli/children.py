"""Child processes that end with their parent, announce themselves, and leave their last words.

A child that is started here prints one JSON line to stdout when it is ready (`--announce`). Its stderr is
read all the time: the newest lines explain a failure.
"""

import asyncio
import ctypes
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from tradeback.model.errors import TradebackError

LAST_WORDS = 5
"""Lines of stderr that are kept to explain a failure."""
STOP_TIMEOUT_S = 10.0
"""How long a child may take to end before it is killed."""
PR_SET_PDEATHSIG = 1


class ChildFailed(TradebackError):
    """A child ended by itself or did not start; the exit code is its own when it refused to start (2)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Child:
    """One `tradeback` sub-command as a child process."""

    def __init__(
        self, name: str, process: asyncio.subprocess.Process, on_line: Callable[[str], None]
    ) -> None:
        self.name = name
        self._process = process
        self._last: deque[str] = deque(maxlen=LAST_WORDS)
        self._on_line = on_line
        self._listening = asyncio.ensure_future(self._listen())

    @classmethod
    async def start(
        cls,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        on_line: Callable[[str], None] = lambda line: None,
    ) -> "Child":
        """Run `tradeback ARGUMENTS`. `on_line` gets every line of its stderr as it comes."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tradeback",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C of the terminal reaches the parent only, which ends its children
            preexec_fn=_end_with_parent(),
        )
        return cls(name, process, on_line)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def announcement(self, timeout_s: float) -> dict[str, str]:
        """The JSON line it prints when it is ready. ChildFailed when it ends first or takes too long."""
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout_s)
        except TimeoutError:
            raise ChildFailed(f"{self.name} did not start within {timeout_s:.0f} s", 1) from None
        if not line:
            await self.failure()
        announced: dict[str, str] = json.loads(line)
        return announced

    async def failure(self) -> None:
        """Wait until it has ended by itself, then raise ChildFailed with its last words."""
        code = await self._process.wait()
        await self._listening
        words = "\n  ".join(self._last) or "it said nothing"
        raise ChildFailed(f"{self.name} ended with exit code {code}:\n  {words}", 2 if code == 2 else 1)

    async def stop(self) -> None:
        """Ask it to end, kill it if it does not; returns when it is gone."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await self._listening

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            text = line.decode("utf-8", "replace").rstrip()
            self._last.append(text)
            self._on_line(text)


def _end_with_parent() -> Callable[[], None] | None:
    """What the child does before it becomes another program: tell Linux to end it when we die, however."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)  # loaded now: a forked child should not
    parent = os.getpid()

    def prepare() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return prepare
