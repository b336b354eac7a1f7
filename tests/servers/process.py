"""One server as a child process: started, asked whether it is ready, paused, killed, started again."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
STARTS_MAX = 3
"""Attempts with another port each: between choosing one and binding it somebody else may take it."""
POLL_S = 0.005
_births = ThreadPoolExecutor(1, "servers")
"""Where processes are born: the parent's death that ends them is that of the thread which made them,
and tests restart servers from threads that go."""
_SEARCH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))


class ServerFailed(RuntimeError):
    """The server ended, or did not get ready; holds the end of its log."""


def find_binary(name: str) -> str | None:
    """Where a server's program is; system folders are searched too, whatever the caller's PATH."""
    return shutil.which(name, path=_SEARCH)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A context manager around one process. `port` stays the same over `restart`."""

    program: ClassVar[str]
    package: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, folder: Path, *extra: str, env: dict[str, str] | None = None) -> None:
        """`extra`: further arguments of the command; `env`: further variables."""
        self.folder = folder
        self.port = free_port()
        self._extra, self._env = extra, env or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "server.log"

    host = "127.0.0.1"

    # What each server says of itself.

    def command(self) -> list[str]:
        """The command with its arguments, without `extra`."""
        raise AssertionError("each server has its own")

    def environment(self) -> dict[str, str]:
        """Further variables of the process."""
        return {}

    def is_ready(self) -> bool:
        """Whether it answers. Raises OSError while nobody listens."""
        raise AssertionError("each server has its own")

    def prepare(self) -> None:
        """What must be done once before the first start."""

    # What tests do with it.

    @property
    def running(self) -> bool:
        """Whether the process lives (paused counts)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id; AssertionError when it has never been started."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start and wait until it answers. Raises ServerFailed with the end of its log."""
        for attempt in range(STARTS_MAX):
            if self._process is None and attempt == 0:
                self.folder.mkdir(parents=True, exist_ok=True)
                self.prepare()
            try:
                self._launch()
            except ServerFailed:
                if self._process is not None and self._process.poll() is None:
                    self.kill()
                if attempt == STARTS_MAX - 1:
                    raise
                if attempt:
                    self.port = free_port()
            else:
                break
        return self

    def stop(self) -> None:
        """End it in its own good order; kill it when it does not. Nothing when it does not run."""
        if not self.running:
            return
        assert self._process is not None
        self.resume()
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone: a crash."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)

    def pause(self) -> None:
        """SIGSTOP, and wait until every thread has stopped: connections stay open, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def resume(self) -> None:
        """SIGCONT, whether paused or not."""
        if self.running:
            assert self._process is not None
            self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop it if it runs, and start it on the same port with what its folder holds."""
        self.stop()
        self.start()

    def heal(self) -> None:
        """Whatever a test did to it: resumed, and running again."""
        if self.running:
            self.resume()
        else:
            self.start()

    def log_tail(self) -> str:
        """The last lines of what it wrote."""
        with contextlib.suppress(OSError):
            return "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-15:])
        return ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self) -> None:
        command = self.command()
        found = find_binary(command[0])
        if found is None:
            raise ServerFailed(f"{command[0]} is not installed (package {self.package})")
        command = [found, *command[1:], *self._extra]
        guard = find_binary("setpriv")
        if guard is not None:  # the server ends with the tests, even when those are killed
            command = [guard, "--pdeathsig", "KILL", "--", *command]
        with self._log.open("ab") as log:
            self._process = _births.submit(
                subprocess.Popen,
                command,
                cwd=self.folder,
                env={**os.environ, **self.environment(), **self._env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ).result()
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if self._process.poll() is not None:
                raise ServerFailed(
                    f"{self.program} ended with {self._process.returncode}:\n{self.log_tail()}"
                )
            with contextlib.suppress(OSError):
                if self.is_ready():
                    return
            time.sleep(POLL_S)
        raise ServerFailed(f"{self.program} is not ready after {READY_TIMEOUT_S} s:\n{self.log_tail()}")


def ask(port: int, message: bytes, size: int = 4096) -> bytes:
    """What a server on `port` answers at first to `message` (b"": to the mere connection)."""
    with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
        if message:
            connection.sendall(message)
        return connection.recv(size)
