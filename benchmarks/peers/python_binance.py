"""python-binance: BinanceSocketManager.multiplex_socket, `recv` in a loop, as its documentation shows."""

import asyncio

from binance import AsyncClient, BinanceSocketManager

from benchmarks.peers.child import Record, Task, main

QUEUE = 1_000_000
"""Its default of 100 messages overflows at once when they come in bulk, and what overflows is lost."""


async def _follow(task: Task, record: Record) -> None:
    manager = BinanceSocketManager(AsyncClient(), max_queue_size=QUEUE)
    manager.STREAM_URL = f"{task.ws}/"
    async with manager.multiplex_socket(task.streams("trade", "bookTicker")) as socket:
        while True:
            message = await socket.recv()
            data = message.get("data")
            if data is None:
                record.tell("error message", str(message))
            elif data.get("e") == "trade":
                float(data["p"]), float(data["q"])
                record.trade(data["s"], data["t"])
            else:
                float(data["b"]), float(data["B"]), float(data["a"]), float(data["A"])
                record.quote()


def run(task: Task, record: Record) -> None:
    """Read for ever."""
    asyncio.run(_follow(task, record))


if __name__ == "__main__":
    main(run, "python-binance", "websockets")
