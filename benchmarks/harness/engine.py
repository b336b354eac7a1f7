"""The real engine as a child process: `tradeback run --announce`, configured by its environment alone."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from benchmarks.harness import children, machine
from benchmarks.harness.announced import START_SECONDS_MAX, Announced, CommandError

POLL_SECONDS = 0.002
HISTORY_POLL_SECONDS = 0.1


class Endpoints(Protocol):
    """An exchange, as far as an engine must know it."""

    ws_endpoint: str
    rest_endpoint: str


class EngineError(CommandError):
    """The engine did not become ready, or ended."""


def _inherited() -> dict[str, str]:
    """This process' environment without the kernel cache that importing tradeback has chosen for it."""
    return {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}


class Engine(Announced):
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
        super().__init__("engine")
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
        announced = self._start(
            "run", "--announce", *self._flags(spin, alone),
            environment={**_inherited(), **settings, **(environment or {})},
            prepare=prepare, place=self.folder,
        )  # fmt: skip
        self.port = urlsplit(announced["http"]).port or 80
        self.port_open_s = time.monotonic() - self.started_s

    @staticmethod
    def _flags(spin: bool, alone: bool) -> list[str]:
        return [*(["--spin"] if spin else []), *(["--single-process"] if alone else [])]

    def family(self) -> dict[str, int]:
        """Process ids by part: the supervisor and its children (engine, recorder); one entry when alone."""
        found = {"supervisor": self.pid}
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for pid in map(int, listed):
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            if "tradeback.cli.child" in words:
                found[words[words.index("tradeback.cli.child") + 1]] = pid
        return found if len(found) > 1 else {"engine": self.pid}

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
