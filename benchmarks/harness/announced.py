"""A `tradeback` command as a child process that says in one line of JSON where it listens."""

import json
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 10.0
TAIL_CHARACTERS = 2_000


class CommandError(RuntimeError):
    """A command did not start, or ended."""


def command() -> list[str]:
    """How to start tradeback with this interpreter's environment."""
    script = Path(sys.executable).with_name("tradeback")
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "from tradeback.cli.main import main; main()"]


class Announced:
    """Base of those who run one. Use as a context manager; its folder goes with it."""

    process: subprocess.Popen[str]

    def __init__(self, what: str) -> None:
        """`what` it is, in words of errors and in the name of its folder."""
        self._what = what
        self.folder = Path(tempfile.mkdtemp(prefix=f"tradeback-{what.replace(' ', '-')}-"))

    def _start(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
        place: Path | None = None,
    ) -> dict[str, str]:
        """Start `tradeback ...`; what it announces. `prepare` runs in the child, `place` is where.

        Raises CommandError with the end of its log when it announces nothing; then all is tidied up.
        """
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command(), *arguments], stdout=subprocess.PIPE, stderr=log, text=True,
                env=environment, preexec_fn=prepare, cwd=place,
            )  # fmt: skip
        try:
            return self._announcement()
        except BaseException:
            self.close()
            raise

    def _announcement(self) -> dict[str, str]:
        out = self.process.stdout
        assert out is not None
        deadline = time.monotonic() + START_SECONDS_MAX
        while (left := deadline - time.monotonic()) > 0 and select.select([out], [], [], left)[0]:
            line = out.readline()
            if not line:
                self.process.wait()
                raise CommandError(f"the {self._what} ended before it listened:\n{self.log_tail()}")
            if line.startswith("{"):
                found: dict[str, str] = json.loads(line)
                return found
        words = f"the {self._what} does not listen after {START_SECONDS_MAX:.0f} s"
        raise CommandError(f"{words}:\n{self.log_tail()}")

    @property
    def pid(self) -> int:
        """The process id of the one that was started."""
        return self.process.pid

    def log_tail(self) -> str:
        """The end of what it said."""
        return (self.folder / "log").read_text(errors="replace")[-TAIL_CHARACTERS:]

    def close(self) -> None:
        """End it as Ctrl-C would, and by force when it does not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
