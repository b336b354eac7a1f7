"""`python -m tests.cli.engine_stub MODE ...`: the run command over an engine whose life is scripted.

What run does with the engine (announce, wait, stop, exit code) shows here in cases that the real engine
reaches seldom. It writes its calls to stderr.
"""

import asyncio
import sys
from types import ModuleType

import msgspec

from tradeback.cli.main import main
from tradeback.model.errors import StartupError, TapeError


def make_engine(mode: str) -> type:
    """An engine that serves, refuses, hangs at start, ends by itself, fails at work or shows its settings."""

    class Engine:
        url = "http://127.0.0.1:5"

        def __init__(self, config: object, clock: object) -> None:
            self.progress = print
            if mode == "shows":
                sys.stderr.buffer.write(msgspec.json.encode(config) + b"\n")
                sys.stderr.flush()

        async def start(self) -> None:
            self.progress("compiling")
            if mode == "refuses":
                raise StartupError("port 5 is taken")
            if mode == "hangs":
                sys.stderr.write("starting\n")
                await asyncio.Event().wait()

        async def wait_stopped(self) -> None:
            if mode == "serves":
                await asyncio.Event().wait()
            if mode == "fails":
                raise TapeError("the disk is full")

        async def stop(self) -> None:
            await asyncio.sleep(0)
            sys.stderr.write("stopped\n")

    return Engine


if __name__ == "__main__":
    module = ModuleType("tradeback.engine")
    module.Engine = make_engine(sys.argv[1])  # type: ignore[attr-defined]
    sys.modules["tradeback.engine"] = module
    main(["run", "--single-process", *sys.argv[2:]])
