"""The base of comparison: what one writes by hand with `websockets` and orjson."""

import asyncio

import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from benchmarks.peers.child import Record, Task, main


async def _follow(task: Task, record: Record) -> None:
    url = f"{task.ws}/stream?streams={'/'.join(task.streams('trade', 'bookTicker'))}"
    async for socket in connect(url, compression=None):
        try:
            async for message in socket:
                data = orjson.loads(message)["data"]
                if data.get("e") == "trade":
                    float(data["p"]), float(data["q"])
                    record.trade(data["s"], data["t"])
                else:
                    float(data["b"]), float(data["B"]), float(data["a"]), float(data["A"])
                    record.quote()
        except ConnectionClosed as closed:
            record.tell("exception", str(closed))


def run(task: Task, record: Record) -> None:
    """Read for ever."""
    asyncio.run(_follow(task, record))


if __name__ == "__main__":
    main(run, "websockets", "orjson")
