"""The tape of a hub, read from NATS: live messages as they come, the stream for everything else.

A frame says which stretch of the tape it holds. What comes live and goes on where this edge's tape ends is
taken at once; anything else (a hole, another epoch, silence while the stream has more) is read from the
stream, which holds the tape in its order. So it does not matter what of the live messages is lost.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

from tradeback.edge.turn import Turn
from tradeback.model.clock import Clock
from tradeback.model.config import NatsConfig
from tradeback.model.errors import StoreError
from tradeback.model.record import Rows
from tradeback.ops.health import ComponentHealth, State
from tradeback.ops.log import Log
from tradeback.ops.metrics import Family, unlabelled
from tradeback.stores.bus_nats import NatsBus
from tradeback.stores.nats_stream import READS_MAX, StreamState, TapeStream
from tradeback.stores.ports_bus import Message
from tradeback.tape.follow import Place
from tradeback.wire.v2_exact import ExactCodec, Stretch, position_of
from tradeback.wire.v2_frame import WireError

CONNECT_S = 1.0
RETRY_S = 0.5
POLL_S = 0.5
"""How often the stream is asked whether it has more than what came live."""
LIVE_BYTES_MAX = 16 * 1024 * 1024
"""Live messages that wait; what comes beyond is read from the stream later."""
HOLE_LONG_S = 5.0
"""A hole that the stream does not fill for so long makes the health degraded."""

Take = Callable[[Rows], Awaitable[None]]
"""Puts records on this edge's tape, behind its last one."""


class TapeEnd(Protocol):
    """This edge's own tape."""

    epoch: int
    next_sequence: int


class HubTape:
    """`run` until it is cancelled, or raises Turn. One loop."""

    def __init__(
        self,
        bus: NatsBus,
        config: NatsConfig,
        tape: TapeEnd,
        epochs: Callable[[], list[tuple[int, int]]],
        take: Take,
        clock: Clock,
        log: Log,
    ) -> None:
        """`epochs`: all that this edge's tape knows."""
        self.node = config.node
        self.caught_up = asyncio.Event()
        """The tape has reached the stream's end once."""
        self.unreachable = asyncio.Event()
        """The stream could not be read, at least once."""
        self.stream = TapeStream(bus, config)
        self.last_error: str | None = None
        self._bus, self._tape, self._epochs, self._take = bus, tape, epochs, take
        self._clock, self._log = clock, log
        self._codec = ExactCodec()
        self._live: deque[bytes] = deque()
        self._live_bytes = 0
        self._came = asyncio.Event()
        self._floor = 1
        """Number in the stream before which nothing new stands."""
        self._looked = 0
        """Last number of the stream when it had nothing new."""
        self._end = 0
        self._hole_ns = 0
        self._since_ns = clock.wall_ns()
        self._state: State = "starting"
        self._newest_ns = 0
        self.live_frames = self.stored_frames = self.holes = self.overflows = self.damaged = 0

    async def run(self) -> None:
        """Follow the hub for ever. Raises Turn when the tape has to be opened anew."""
        await asyncio.to_thread(self._codec.attach)
        self._bus.on_connect.append(self._came.set)
        subscription = await self._bus.subscribe(self.stream.subject, self._on_message)
        try:
            while True:
                try:
                    await self._bus.ready(CONNECT_S)
                    await self._read_stream()
                    self._reached()
                    await self._listen()
                except StoreError as error:
                    self._failed(str(error))
                    await asyncio.sleep(RETRY_S)
        finally:
            await subscription.end()

    # Live.

    async def _on_message(self, message: Message) -> None:
        if self._live_bytes + len(message.payload) > LIVE_BYTES_MAX:
            self.overflows += 1
            return
        self._live.append(message.payload)
        self._live_bytes += len(message.payload)
        self._came.set()

    async def _listen(self) -> None:
        """Take what comes live, as long as it goes on where the tape ends."""
        while True:
            while self._live:
                frame = self._live.popleft()
                self._live_bytes -= len(frame)
                if not await self._take_live(frame):
                    return
            try:
                async with asyncio.timeout(POLL_S):
                    await self._came.wait()
            except TimeoutError:
                if await self._is_behind():
                    return
            self._came.clear()
            if not self._live and await self._is_behind():
                return

    async def _take_live(self, frame: bytes) -> bool:
        """False: the stream has to be read."""
        try:
            stretch = self._codec.decode(frame)
        except WireError as error:
            self._note_damage(error)
            return False
        if stretch.epoch != self._tape.epoch:
            return False
        if stretch.first > self._tape.next_sequence:
            self.holes += 1
            self._hole_ns = self._hole_ns or self._clock.steady_ns()
            return False
        if stretch.end > self._tape.next_sequence:
            self.live_frames += 1
            await self._put(stretch)
        return True

    async def _is_behind(self) -> bool:
        """Whether the stream has records that did not come."""
        state = await self.stream.state()
        if state.first > state.last or state.last == self._looked:
            return False
        frame = await self.stream.read(state.last)
        if frame is not None and self._is_new(frame):
            return True
        self._looked = state.last
        return False

    # The stream.

    async def _read_stream(self) -> None:
        """Everything that the stream has behind this tape."""
        state = await self.stream.state()
        number = await self._locate(state)
        while True:
            if number > state.last:
                state = await self.stream.state()
                if number > state.last:
                    self._floor = max(1, number - 1)
                    return
            numbers = range(number, min(number + READS_MAX, state.last + 1))
            self._end = state.last
            for place, frame in zip(numbers, await self.stream.read_many(numbers), strict=True):
                if frame is None:
                    state = await self.stream.state()
                    number = max(
                        place + 1, state.first
                    )  # retention was faster: the next frame shows the hole
                    break
                await self._take_stored(frame)
                number = place + 1

    async def _locate(self, state: StreamState) -> int:
        """Number of the first message that holds something new; one behind the last when none does."""
        low, high = max(state.first, min(self._floor, state.last + 1)), state.last + 1
        while low < high:
            middle = (low + high) // 2
            frame = await self.stream.read(middle)
            if frame is not None and self._is_new(frame):
                high = middle
            else:
                low = middle + 1
        return low

    def _is_new(self, frame: bytes) -> bool:
        """Whether a message of the stream reaches behind this tape."""
        try:
            epoch, end = position_of(frame)
        except WireError:
            return False
        if epoch == self._tape.epoch:
            return end > self._tape.next_sequence
        return epoch not in dict(self._epochs())

    async def _take_stored(self, frame: bytes) -> None:
        """The next message of the stream. Raises Turn."""
        try:
            stretch = self._codec.decode(frame)
        except WireError as error:
            self._note_damage(error)
            return
        tape = self._tape
        if stretch.epoch != tape.epoch:
            if stretch.epoch not in dict(self._epochs()):
                raise Turn(Place(stretch.epoch, stretch.first), f"the hub {self.node} has begun a new epoch")
            return
        if stretch.first > tape.next_sequence:
            lost = f"records {tape.next_sequence} to {stretch.first - 1} are not in the stream any more"
            raise Turn(Place(stretch.epoch, stretch.first), lost, lost)
        if stretch.end > tape.next_sequence:
            self.stored_frames += 1
            await self._put(stretch)
        await asyncio.sleep(0)  # a long way to catch up must not keep the loop from its clients

    async def _put(self, stretch: Stretch) -> None:
        await self._take(stretch.rows[self._tape.next_sequence - stretch.first :])
        self._newest_ns = int(stretch.rows["recv_ns"][-1])
        self._hole_ns = 0

    def _note_damage(self, error: WireError) -> None:
        self.damaged += 1
        self._log.error("a batch of the hub's tape cannot be used", node=self.node, reason=str(error))

    # Telling.

    def _reached(self) -> None:
        self.caught_up.set()
        if self._state != "ok":
            self._log.info("the hub's tape is here", node=self.node, sequence=self._tape.next_sequence - 1)
            self._become("ok")
        self.last_error = None

    def _failed(self, words: str) -> None:
        self.unreachable.set()
        if words != self.last_error:
            self._log.warning("the hub's tape cannot be read", node=self.node, reason=words)
        self.last_error = words
        if self._state == "ok":
            self._become("down")

    def _become(self, state: State) -> None:
        self._state, self._since_ns = state, self._clock.wall_ns()

    def health(self) -> ComponentHealth:
        """ok while it follows; down while it cannot; degraded while a hole stays open."""
        state, words = self._state, self.last_error
        if words is not None:
            state = "down"
        elif self._hole_ns and self._clock.steady_ns() - self._hole_ns > HOLE_LONG_S * 1e9:
            state = "degraded"
            missing = self._tape.next_sequence
            words = f"records from {missing} on are missing, and not in the stream {self.stream.name} either"
        age_s = (self._clock.wall_ns() - self._newest_ns) / 1e9 if self._newest_ns else None
        details = {
            "node": self.node,
            "newest_record_age_s": round(age_s, 3) if age_s is not None else None,
            "sequence": self._tape.next_sequence - 1,
            "stream_messages": self._end,
            "holes": self.holes,
            "damaged": self.damaged,
        }
        return ComponentHealth("line:hub", state, self._since_ns, words, None, details)

    def collect(self) -> Iterator[Family]:
        """Frames by where they came from, and what was wrong."""
        frames = Family("tradeback_edge_frames", "counter", "Batches taken from the hub, by way.")
        yield frames.add(self.live_frames, way="live").add(self.stored_frames, way="stream")
        yield from unlabelled(
            "tradeback_edge_",
            "counter",
            (
                ("holes", self.holes, "Holes in the live batches; they are read from the stream."),
                ("overflows", self.overflows, "Live batches let go because too many waited."),
                ("damaged", self.damaged, "Batches that could not be used."),
            ),
        )
