"""One edge after the other on the same folder and port: each ends when the hub's tape goes on elsewhere."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from tradeback.edge.engine import Edge, prepare
from tradeback.edge.turn import Turn
from tradeback.model.config import Config
from tradeback.ops.clock import SystemClock
from tradeback.ops.race import race


async def serve(
    config: Config,
    stopping: asyncio.Event,
    on_open: Callable[[str], None],
    progress: Callable[[str], None] = lambda line: None,
) -> None:
    """Until `stopping` is set. `on_open` gets the address once. Raises what ends an engine for good."""
    opened, lost = False, ""
    while not stopping.is_set():
        await asyncio.to_thread(prepare, config)
        engine = Edge(config, SystemClock(), lost)
        engine.progress = progress
        turn = None
        try:
            if await _until(engine.start(), stopping):
                config = _on_port(config, engine.url)
                if not opened:
                    on_open(engine.url)
                opened = True
                await _until(engine.wait_stopped(), stopping)
        except Turn as error:
            turn = error
        finally:
            await engine.stop(restarting=turn is not None)
        if turn is not None:
            lost = turn.lost
            await asyncio.to_thread(turn.apply, Path(config.data_dir) / "tape")


async def _until(work: Coroutine[Any, Any, None], stopping: asyncio.Event) -> bool:
    """Until `work` has ended (True; its error is raised) or `stopping` is set."""
    return await race(work, stopping.wait()) == 0


def _on_port(config: Config, url: str) -> Config:
    """The configuration with the port that was found, which the next engine takes, too."""
    port = int(url.rpartition(":")[2])
    return msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, port=port))
