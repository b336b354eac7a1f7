"""Ingest through picows' public callback: with orjson, float and dict (the usual way), and an empty one."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import picows
import uvloop

from benchmarks.harness import ingest_child
from benchmarks.harness.children import Pipe

TRADE, AGG, QUOTE = 1, 2, 3
Tick = tuple[int, int, int, int, float, float, float, float, bool]


class _Empty(picows.WSListener):
    """Counts frames, looks at none: the ceiling of a callback per message."""

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__()
        self.count = 0
        self.ids = 0
        self.symbol_ids = {name: number for number, name in enumerate(symbols, 1)}

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """One frame."""
        self.count += 1

    def taken(self) -> int:
        """All but the reply to SUBSCRIBE."""
        return self.count - 1

    def id_sum(self) -> int:
        """Kept only by the design that decodes."""
        return self.ids


class _Orjson(_Empty):
    """orjson.loads, float() and a dict for the symbol; tuples in a list per read. No dedup, no tape."""

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__(symbols)
        self.batch: list[Tick] = []

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """One frame."""
        self.count += 1
        data = orjson.loads(frame.get_payload_as_memoryview()).get("data")
        if data is None:
            return
        event, symbol_id = data.get("e"), self.symbol_ids[data["s"]]
        if event is None:
            tick = (
                QUOTE, symbol_id, 0, data["u"],
                float(data["b"]), float(data["B"]), float(data["a"]), float(data["A"]), False,
            )  # fmt: skip
        elif event == "trade":
            price, quantity = float(data["p"]), float(data["q"])
            tick = (TRADE, symbol_id, data["T"], data["t"], price, quantity, 0.0, 0.0, data["m"])
        else:
            price, quantity = float(data["p"]), float(data["q"])
            tick = (AGG, symbol_id, data["T"], data["a"], price, quantity, 0.0, 0.0, data["m"])
        self.ids += tick[3]
        self.batch.append(tick)
        if frame.last_in_buffer:
            self.batch.clear()


DESIGNS = {"empty": _Empty, "orjson": _Orjson}


def serve(pipe: Pipe, endpoint: str, certificate: str | None, symbols: Sequence[str], design: str) -> None:
    """Child: subscribes, then takes what comes."""

    async def connect() -> ingest_child.Taker:
        taker = DESIGNS[design](symbols)
        transport, _ = await picows.ws_connect(
            lambda: taker, endpoint + ingest_child.STREAM_PATH,
            ssl_context=ingest_child.trusting(certificate),
            read_buffer_init_size=ingest_child.READ_BUFFER_BYTES,
        )  # fmt: skip
        transport.send(picows.WSMsgType.TEXT, ingest_child.SUBSCRIBE)
        while taker.taken() < 1:
            await asyncio.sleep(0.001)
        return taker

    uvloop.run(ingest_child.answer(pipe, connect))
