"""The simulated exchange of a soak as a child process: `tradeback sim --announce`."""

import json
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from types import TracebackType

from benchmarks.harness.engine import EngineError, command

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 10.0


class Market:
    """A running `tradeback sim`. Use as a context manager."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """`arguments` of the command besides the port. Returns when it listens."""
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        self.process = subprocess.Popen(
            [*command(), "sim", "--port", "0", "--announce", *arguments],
            stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        try:
            found = self._announced()
        except BaseException:
            self.close()
            raise
        self.ws_endpoint, self.rest_endpoint = found["ws"], found["rest"]

    def _announced(self) -> dict[str, str]:
        out = self.process.stdout
        if out is None or not select.select([out], [], [], START_SECONDS_MAX)[0]:
            raise EngineError(f"the simulator does not listen after {START_SECONDS_MAX:.0f} s")
        line = out.readline()
        if not line:
            self.process.wait()
            raise EngineError(f"the simulator ended before it listened:\n{self.log_tail()}")
        found: dict[str, str] = json.loads(line)
        return found

    def log_tail(self) -> str:
        """The end of what it said."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 2_000))
        return self._log.read()

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()

    def __enter__(self) -> "Market":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
