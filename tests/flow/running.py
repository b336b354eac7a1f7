"""The engine and the simulator as processes, as their users run them, and waiting for what they do."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import aiohttp

from tradeback.tape.reader import TapeReader

POLL_S = 0.02
START_S = 60.0
"""The first start ever compiles the kernels."""


async def until(
    done: Callable[[], bool | Awaitable[bool]], what: str, timeout_s: float = 20.0, *, strict: bool = True
) -> bool:
    """Look until `done`. When it takes too long: fail, or False where the caller can tell more."""
    end = time.monotonic() + timeout_s
    while True:
        answer = done()
        if answer if isinstance(answer, bool) else await answer:
            return True
        if time.monotonic() > end:
            assert not strict, f"waited {timeout_s:.0f} s in vain for {what}"
            return False
        await asyncio.sleep(POLL_S)


def children_of(process: int) -> list[int]:
    """Process ids of the direct children."""
    try:
        listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(word) for word in listed.split()]


class Process:
    """One `tradeback` command. Its stderr goes to a file, which explains failures."""

    def __init__(self, child: asyncio.subprocess.Process, log: Path) -> None:
        self.child, self.log = child, log
        self.announced: dict[str, str] = {}

    @classmethod
    async def start(cls, *arguments: str, log: Path, variables: Mapping[str, str]) -> Self:
        with log.open("ab") as errors:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tradeback", *arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=errors,
                env={**os.environ, **variables},
            )  # fmt: skip
        return cls(child, log)

    async def announcement(self) -> dict[str, str]:
        """The line it prints when it listens."""
        assert self.child.stdout is not None
        line = await asyncio.wait_for(self.child.stdout.readline(), START_S)
        assert line, f"it ended: {self.log.read_text()}"
        self.announced = json.loads(line)
        return self.announced

    async def kill(self) -> None:
        """kill -9, and so its children: as when the machine's memory is short, all at once."""
        if self.child.returncode is None:
            for child in (self.child.pid, *children_of(self.child.pid)):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        await self.child.wait()

    async def stop(self) -> None:
        """Ctrl-C; it must end with code 0 and without a traceback."""
        self.child.send_signal(signal.SIGINT)
        await asyncio.wait_for(self.child.communicate(), 30)
        text = self.log.read_text()
        assert self.child.returncode == 0, text
        assert "Traceback" not in text, text


class Engine(Process):
    """`tradeback run`."""

    data_dir: Path

    @property
    def url(self) -> str:
        return self.announced["http"]

    @property
    def feed_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/api/v1/ws"

    def tape(self) -> TapeReader:
        return TapeReader(self.data_dir / "tape")

    async def ready(self) -> None:
        """Until lines deliver and the kernels are there."""
        words = ""
        async with aiohttp.ClientSession(self.url) as http:

            async def answers() -> bool:
                nonlocal words
                with suppress(aiohttp.ClientConnectionError):
                    async with http.get("/api/v1/health/ready") as answer:
                        words = await answer.text()
                        return answer.status == 200
                return self.child.returncode is not None

            came = await until(answers, "a ready engine", START_S, strict=False)
        assert came, f"not ready after {START_S:.0f} s: {words}\n{self.log.read_text()}"
        assert self.child.returncode is None, self.log.read_text()

    async def get(self, path: str, **query: Any) -> Any:
        """The JSON of one route, which must answer 200."""
        async with aiohttp.ClientSession(self.url) as http, http.get(path, params=query) as answer:
            text = await answer.text()
            assert answer.status == 200, f"{path}: {answer.status} {text}"
            return json.loads(text)

    async def history_complete(self) -> None:
        """Until bars and levels from before the tape are there."""

        async def complete() -> bool:
            detailed = await self.get("/api/v1/health/detailed")
            (history,) = (part for part in detailed["components"] if part["name"] == "history")
            return bool(history["state"] == "ok")

        await until(complete, "the history", 45)


async def start_engine(
    data_dir: Path, exchange: Mapping[str, str], variables: Mapping[str, str] | None = None
) -> Engine:
    """An engine whose port is open. `exchange`: the addresses as the simulator announces them."""
    given = {
        "EXCHANGE_WS_ENDPOINT": exchange["ws"],
        "EXCHANGE_REST_ENDPOINT": exchange["rest"],
        "EXCHANGE_SYMBOLS": "*",
        "SERVER_PORT": "0",
        "DATA_DIR": str(data_dir),
        **(variables or {}),
    }
    data_dir.mkdir(exist_ok=True)
    engine = await Engine.start("run", "--announce", log=data_dir / "log", variables=given)
    engine.data_dir = data_dir
    return engine


@asynccontextmanager
async def running_engine(
    data_dir: Path, exchange: Mapping[str, str], **variables: str
) -> AsyncIterator[Engine]:
    """An engine that is ready; killed at the end unless it was stopped."""
    engine = await start_engine(data_dir, exchange, variables)
    try:
        await engine.announcement()
        await engine.ready()
        yield engine
    finally:
        await engine.kill()


@asynccontextmanager
async def running_market(folder: Path, symbols: int, rate: float, *more: str) -> AsyncIterator[Process]:
    """A synthetic exchange in a process of its own; `more` arguments of the command."""
    arguments = ("sim", "--port", "0", "--announce", "--symbols", str(symbols), "--rate", str(rate))
    market = await Process.start(*arguments, *more, log=folder / "sim.log", variables={})
    try:
        await market.announcement()
        yield market
    finally:
        await market.kill()
