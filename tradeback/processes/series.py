"""Bars in an engine that has a recorder: it asks, for only the recorder knows what the store holds.

Bars are the store's and, on top, what has changed since its newest write. Both must be of the same
moment, or a trade counts twice or not at all; so one process has both, and answers. A question that
finds no recorder waits for it to be restarted, up to WAIT_S.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tradeback.derive.lacking import Span
from tradeback.derive.layout import BAR, Bars
from tradeback.model.errors import TradebackError
from tradeback.model.symbols import SymbolTable
from tradeback.ops.health import ComponentHealth
from tradeback.ops.metrics import Family
from tradeback.processes.link import Message
from tradeback.processes.peers import Peer
from tradeback.processes.report import unpack_families, unpack_health
from tradeback.stores.ports import Stored

if TYPE_CHECKING:
    from tradeback.derive.state import Derived
    from tradeback.exchange.backfill import Backfill

WAIT_S = 10.0
FORGET_S = 5.0
"""How often the closed bars in the engine's own derived state are dropped: the recorder has them."""


@dataclass(slots=True)
class _Asked:
    message: Message
    answer: asyncio.Future[tuple[Bars, NDArray[np.bool_]]]


class RecordedSeries:
    """`api.context.BarSeries` over a link to the recorder. Loop thread only."""

    def __init__(self, address: str, next_sequence: Callable[[], int]) -> None:
        """`next_sequence`: of the record to come on the tape."""
        self.peer = Peer("recorder", address, self._take)
        self.peer.on_link = self._ask_again
        self.derived: Derived | None = None
        """The engine's own state, whose closed bars nobody takes."""
        self._next_sequence = next_sequence
        self._asked: dict[int, _Asked] = {}
        self._count = 0
        self._since_ns = time.time_ns()
        self._timer: asyncio.TimerHandle | None = None
        self._klines: Backfill | None = None
        self._symbols: SymbolTable | None = None
        self._filling: set[asyncio.Task[None]] = set()

    def serve_klines(self, klines: "Backfill", symbols: SymbolTable) -> None:
        """Fetch klines for the recorder, and tell it of all that are stored."""
        self._klines, self._symbols = klines, symbols
        klines.on_note.append(lambda symbol_id, index: self._tell_stored(symbol_id, index))

    def _tell_stored(self, symbol_id: int, resolution: int) -> None:
        self.peer.send({"stored": [symbol_id, resolution]})

    async def _fill(self, message: Message) -> None:
        symbol_id, resolution, spans, bars_wanted, wait_s = message["ask"]
        symbol = self._symbols.by_id(symbol_id) if self._symbols is not None else None
        settled = False
        if symbol is not None and self._klines is not None:
            asked = [Span(*span) for span in spans]
            with contextlib.suppress(TradebackError):
                settled = await self._klines.fill(symbol, resolution, asked, bars_wanted, wait_s)
        self.peer.send({"filled": message["fill"], "settled": settled})

    def start(self) -> None:
        """Look for the recorder from now on. Needs the running loop."""
        self.peer.start()
        self._forget()

    async def close(self) -> None:
        """Give the recorder up; what it was asked is not answered any more."""
        if self._timer is not None:
            self._timer.cancel()
        self.peer.close()
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.answer.set_exception(TradebackError("the engine is stopping"))

    def health(self) -> ComponentHealth:
        """The series store as the recorder has reported it."""
        for part in unpack_health(self.peer.report.get("health", ())):
            if part.name == "store:series":
                return part
        return ComponentHealth("store:series", "starting", self._since_ns, "there is no recorder now")

    def others(self) -> Iterator[ComponentHealth]:
        """What else runs in the recorder: its sinks."""
        found = unpack_health(self.peer.report.get("health", ()))
        return (part for part in found if part.name != "store:series")

    def collect(self) -> Iterator[Family]:
        """The numbers of the recorder's newest report."""
        return unpack_families(self.peer.report.get("families", ()))

    async def bars(
        self, symbol_id: int, resolution: int, from_s: int, to_s: int, limit: int, *, newest: bool = False
    ) -> tuple[Bars, NDArray[np.bool_]]:
        """See `SeriesSink.bars`. As of this moment: the recorder reads the tape up to here before.

        Raises TradebackError when there is no answer within WAIT_S.
        """
        self._count = number = self._count + 1
        ask = [symbol_id, resolution, from_s, to_s, limit, newest]
        message = {"bars": number, "ask": ask, "next_sequence": self._next_sequence()}
        asked = _Asked(message, asyncio.get_running_loop().create_future())
        self._asked[number] = asked
        self.peer.send(message)
        try:
            return await asyncio.wait_for(asked.answer, WAIT_S)
        except TimeoutError:
            raise TradebackError("the recorder does not answer; it is restarted or busy") from None
        finally:
            del self._asked[number]

    def _forget(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(FORGET_S, self._forget)
        if self.derived is not None:
            self.derived.forget_changes()

    def _take(self, message: Message, behind: bytes) -> None:
        if "fill" in message:
            task = asyncio.create_task(self._fill(message))
            self._filling.add(task)
            task.add_done_callback(self._filling.discard)
            return
        asked = self._asked.get(message["bars"])
        if asked is None or asked.answer.done():
            return
        error = message.get("error")
        if error is not None:
            asked.answer.set_exception(TradebackError(error))
            return
        count = message["count"]
        rows = np.frombuffer(behind, BAR, count)
        complete = np.frombuffer(behind, np.bool_, count, offset=count * BAR.itemsize)
        asked.answer.set_result((rows, complete))

    def _ask_again(self) -> None:
        """A recorder has come: what its predecessor was asked, it did not answer."""
        for asked in self._asked.values():
            self.peer.send(asked.message)


def pack_bars(number: int, rows: Bars, complete: NDArray[np.bool_]) -> tuple[dict[str, Any], bytes]:
    """The recorder's answer: message and the bytes behind it."""
    return {"bars": number, "count": len(rows)}, rows.tobytes() + complete.tobytes()


class StoreOfAnother:
    """The series store for a process that makes its own derived state from it, and does not write it."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored

    def load(self) -> Stored:
        """As it was loaded."""
        return self._stored

    def write(self, drained: Any, position: Any) -> None:
        """Nothing: the recorder writes."""

    def begin_rebuild(self) -> None:
        """Nothing: the recorder begins it when it sees the same."""
