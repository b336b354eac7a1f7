"""A client that takes a blast: its process answers questions while it reads."""

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from benchmarks.harness.children import Pipe

SUBSCRIBE = b'{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}'
STREAM_PATH = "/stream?timeUnit=MICROSECOND"
READ_BUFFER_BYTES = 256 * 1024


class Taker(Protocol):
    """What a design says about itself."""

    def taken(self) -> int:
        """Market data frames taken so far (bytes, for the design that does not look at them)."""

    def id_sum(self) -> int:
        """Sum of the ids of all that was taken; 0 for a design that does not keep them."""


@dataclass(frozen=True)
class Snapshot:
    """A moment of the reading process."""

    taken: int
    mono_ns: int
    cpu_ns: int


def trusting(certificate: str | None) -> ssl.SSLContext | None:
    """A context that trusts the run's own certificate; None for a plain connection."""
    return ssl.create_default_context(cafile=certificate) if certificate else None


async def answer(pipe: Pipe, connect: Callable[[], Awaitable[Taker]]) -> None:
    """Connect, say so, and answer `snap` and `sum` until the parent closes the pipe."""
    taker = await connect()

    def on_question() -> None:
        try:
            (question,) = pipe.recv()
        except EOFError:
            os._exit(0)  # the parent is gone; nothing here needs a farewell
        if question == "snap":
            pipe.send(("done", Snapshot(taker.taken(), time.monotonic_ns(), time.process_time_ns())))
        else:
            pipe.send(("done", taker.id_sum()))

    asyncio.get_running_loop().add_reader(pipe.fileno(), on_question)
    pipe.send("reading")
    await asyncio.get_running_loop().create_future()
