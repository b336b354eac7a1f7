"""Run the double as a program: build the source, listen, announce, wait for the end."""

import asyncio
import json
import signal
import sys
from dataclasses import dataclass

from tradeback.sim.book import Source
from tradeback.sim.config import SimConfig
from tradeback.sim.fault_script import load_faults
from tradeback.sim.server import SimServer


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line asked for."""

    source: str | None
    files: str
    symbols: int
    rate: float
    seed: int
    bursts: float
    unicode_names: bool
    announce: bool
    once: bool
    faults: str | None = None
    """A fault script's file, or seed:N."""


def make_source(choice: Choice) -> Source:
    """The recording in `choice.source`, or a synthetic market. ValueError or OSError when it cannot be."""
    if choice.source is not None:
        from tradeback.sim.recording import Recording

        return Recording(choice.source, files=choice.files, seed=choice.seed)
    from tradeback.sim.market import Synthetic

    return Synthetic(
        choice.symbols,
        choice.rate,
        choice.seed,
        bursts=choice.bursts,
        unicode_names=choice.unicode_names,
    )


async def serve(choice: Choice, config: SimConfig) -> None:
    """Serve until SIGINT or SIGTERM (or, with `once`, until the recording has been played)."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    source = make_source(choice)
    faults = load_faults(choice.faults, list(source.books)) if choice.faults is not None else None
    server = await SimServer.start(source, config, faults=faults)
    try:
        if choice.announce:
            sys.stdout.write(json.dumps({"ws": server.ws_url, "rest": server.rest_url}) + "\n")
            sys.stdout.flush()
        else:
            sys.stderr.write(f"streams {server.ws_url}   REST {server.rest_url}   Ctrl-C ends it\n")
        if choice.once:
            asyncio.get_running_loop().create_task(_end_with_source(server, ended))
        await ended.wait()
    finally:
        await server.stop()


async def _end_with_source(server: SimServer, ended: asyncio.Event) -> None:
    await server.finished()
    while any(  # noqa: ASYNC110 (transports do not tell when they are empty)
        connection.backlog for connection in server.connections.values()
    ):
        await asyncio.sleep(0.01)
    ended.set()
