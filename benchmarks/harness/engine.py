"""The real engine as a child process: `tradeback run --announce`, configured by its environment alone."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol
from urllib.parse import urlsplit

from benchmarks.harness import children, machine

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 10.0
POLL_SECONDS = 0.002
HISTORY_POLL_SECONDS = 0.1


class Endpoints(Protocol):
    """An exchange, as far as an engine must know it."""

    ws_endpoint: str
    rest_endpoint: str


class EngineError(RuntimeError):
    """The engine did not start, did not become ready, or did not end."""


def command() -> list[str]:
    """How to start tradeback with this interpreter's environment."""
    script = Path(sys.executable).with_name("tradeback")
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "from tradeback.cli.main import main; main()"]


def _inherited() -> dict[str, str]:
    """This process' environment without the kernel cache that importing tradeback has chosen for it."""
    return {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}


class Engine:
    """A running `tradeback run`. Use as a context manager; its data folder goes with it."""

    def __init__(
        self,
        exchange: Endpoints,
        symbols: Sequence[str],
        core: int | None,
        *,
        spin: bool = False,
        alone: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; on `core` alone unless that is None. Returns as soon as the port is announced.

        On one line, because the sender sends everything once; `environment` may say otherwise. `alone`: in
        one process, so that the whole of its work is on `core`, as that of what it is compared with;
        otherwise with its recorder and supervisor, as users have it.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="tradeback-engine-"))
        self._log = (self.folder / "log").open("w+")
        settings = {
            "SERVER_HOST": "127.0.0.1", "SERVER_PORT": "0", "DATA_DIR": str(self.folder / "data"),
            "EXCHANGE_WS_ENDPOINT": exchange.ws_endpoint, "EXCHANGE_REST_ENDPOINT": exchange.rest_endpoint,
            "EXCHANGE_SYMBOLS": ",".join(symbols), "EXCHANGE_LINES": "1", "LOG_LEVEL": "warning",
        }  # fmt: skip

        def prepare() -> None:
            machine.raise_open_files(children.OPEN_FILES)
            if core is not None:
                os.sched_setaffinity(0, {core})

        self.started_s = time.monotonic()
        self.process = subprocess.Popen(
            [*command(), "run", "--announce", *self._flags(spin, alone)],
            env={**_inherited(), **settings, **(environment or {})}, stdout=subprocess.PIPE, stderr=self._log,
            preexec_fn=prepare, cwd=self.folder, text=True,
        )  # fmt: skip
        try:
            self.port = self._announced()
        except BaseException:
            self.close()
            raise
        self.port_open_s = time.monotonic() - self.started_s

    @staticmethod
    def _flags(spin: bool, alone: bool) -> list[str]:
        return [*(["--spin"] if spin else []), *(["--single-process"] if alone else [])]

    @property
    def pid(self) -> int:
        """The process id of the one that was started: of the engine itself when it is alone."""
        return self.process.pid

    def family(self) -> dict[str, int]:
        """Process ids by part: the supervisor and its children (engine, recorder); one entry when alone."""
        found = {"supervisor": self.pid}
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for pid in map(int, listed):
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            if "tradeback.cli.child" in words:
                found[words[words.index("tradeback.cli.child") + 1]] = pid
        return found if len(found) > 1 else {"engine": self.pid}

    def _announced(self) -> int:
        out = self.process.stdout
        if out is None:
            raise EngineError("no pipe to the engine")
        deadline = time.monotonic() + START_SECONDS_MAX
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([out], [], [], left)[0]:
                break
            line = out.readline()
            if not line:
                raise EngineError(f"the engine ended before it listened:\n{self.log_tail()}")
            if line.startswith("{"):
                return urlsplit(str(json.loads(line)["http"])).port or 80
        raise EngineError(f"no port announced in {START_SECONDS_MAX:.0f} s:\n{self.log_tail()}")

    def get(self, path: str, timeout_s: float = 5.0) -> tuple[int, bytes]:
        """(status, body) of a GET."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout_s) as answer:
                return int(answer.status), bytes(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def wait_ready(self, timeout_s: float = START_SECONDS_MAX) -> float:
        """Seconds from the start to the first 200 of /health/ready. Raises EngineError."""
        body = b""
        while time.monotonic() - self.started_s < timeout_s:
            if self.process.poll() is not None:
                raise EngineError(f"the engine ended with {self.process.returncode}:\n{self.log_tail()}")
            try:
                status, body = self.get("/health/ready")
            except urllib.error.URLError as error:
                status, body = 0, str(error.reason).encode()  # it is ending: the next turn says why
            if status == 200:
                return time.monotonic() - self.started_s
            time.sleep(POLL_SECONDS)
        raise EngineError(f"not ready after {timeout_s:.0f} s: {body!r}\n{self.log_tail()}")

    def wait_history(self, timeout_s: float) -> bool:
        """Wait until the exchange's klines are loaded, work beside the path; False when they are not."""
        deadline = time.monotonic() + timeout_s
        while True:
            components = json.loads(self.get("/health/detailed")[1])["components"]
            if all(part["state"] == "ok" for part in components if part["name"] == "history"):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(HISTORY_POLL_SECONDS)

    def log_tail(self) -> str:
        """The end of its log."""
        self._log.flush()
        return Path(self._log.name).read_text()[-2_000:]

    def close(self) -> None:
        """End it as Ctrl-C would, and by force when it does not. Its data folder is removed."""
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
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
