"""Child processes that answer questions over a pipe.

Started fresh, not forked: no lock, loop or cache is inherited.
"""

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Concatenate, ParamSpec

from benchmarks.harness import machine

OPEN_FILES = 20_000
START_SECONDS_MAX = 30.0

Parameters = ParamSpec("Parameters")
Pipe = Connection


class ChildError(RuntimeError):
    """A child failed or did not answer in time."""


def _main(
    pipe: Pipe, core: int, target: Callable[..., None], arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.sched_setaffinity(0, {core})
    machine.raise_open_files(OPEN_FILES)
    try:
        target(pipe, *arguments, **keywords)
    except (EOFError, BrokenPipeError):
        pass  # the parent is gone or has had enough
    except BaseException:
        # The boundary of the process: whatever it was, the parent must see it instead of waiting.
        pipe.send(("error", traceback.format_exc()))
        sys.exit(1)


class Child:
    """`target(pipe, ...)` in a process of its own on one core. What it sends first is `hello`."""

    def __init__(
        self,
        core: int,
        target: Callable[Concatenate[Pipe, Parameters], None],
        *arguments: Parameters.args,
        **keywords: Parameters.kwargs,
    ) -> None:
        """Start it and wait for its first word. Raises ChildError."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_main,
            args=(theirs, core, target, arguments, keywords),
            daemon=True,
            name=target.__module__,
        )
        self.process.start()
        theirs.close()
        try:
            self.hello: Any = self.answer(START_SECONDS_MAX)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        if self.process.pid is None:
            raise ChildError("the child was not started")
        return self.process.pid

    def tell(self, *message: Any) -> None:
        """Send a message without waiting."""
        self.pipe.send(message)

    def answer(self, timeout_s: float) -> Any:
        """The next thing it says. Raises ChildError when it failed, ended or says nothing in time."""
        if not self.pipe.poll(timeout_s):
            raise ChildError(f"{self.process.name} said nothing for {timeout_s:.0f} s")
        try:
            said = self.pipe.recv()
        except EOFError:
            self.process.join(1.0)
            raise ChildError(f"{self.process.name} ended with code {self.process.exitcode}") from None
        if isinstance(said, tuple) and said and said[0] == "error":
            raise ChildError(f"{self.process.name} failed:\n{said[1]}")
        return said

    def ask(self, *message: Any, timeout_s: float = 60.0) -> Any:
        """Send a message and wait for the answer."""
        self.tell(*message)
        return self.answer(timeout_s)

    def close(self) -> None:
        """End it. It holds nothing that would need a farewell."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
