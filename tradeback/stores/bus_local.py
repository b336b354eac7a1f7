"""The bus inside one process: the embedded default, and what the tests compare NATS with."""

import asyncio
import logging
from contextlib import suppress

from tradeback.ops.health import ComponentHealth
from tradeback.stores.bus_readers import Answering, Calls
from tradeback.stores.bus_subjects import check_payload, check_subject, matches
from tradeback.stores.ports_bus import Answerer, Handler, Message, NoAnswer

_Reply = asyncio.Future[bytes]


class LocalSubscription:
    """See `ports_bus.Subscription`."""

    def __init__(self, bus: "LocalBus", pattern: str, queue: str, pending_max: int, handler: Handler) -> None:
        self.pattern, self.queue = pattern, queue
        self.dropped = 0
        self._bus, self._handler = bus, handler
        self._waiting: asyncio.Queue[tuple[Message, _Reply | None]] = asyncio.Queue(pending_max)
        self._task = asyncio.create_task(self._run(), name=f"bus {pattern}")

    def put(self, message: Message, reply: _Reply | None) -> None:
        """Hand over a message, or let it go."""
        try:
            self._waiting.put_nowait((message, reply))
        except asyncio.QueueFull:
            self.dropped += 1

    async def _run(self) -> None:
        while True:
            message, _ = await self._waiting.get()
            await self._bus.calls.handle(self._handler, message)

    async def end(self) -> None:
        """See Subscription."""
        self._bus.forget(self)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


class LocalAnswering(LocalSubscription):
    """One that answers."""

    def __init__(
        self, bus: "LocalBus", pattern: str, queue: str, pending_max: int, answerer: Answerer
    ) -> None:
        self._answerer, self._answering = answerer, Answering()
        super().__init__(bus, pattern, queue, pending_max, _nothing)

    async def _run(self) -> None:
        while True:
            message, reply = await self._waiting.get()
            await self._answering.begin(lambda message=message, reply=reply: self._answer(message, reply))  # type: ignore[misc]

    async def _answer(self, message: Message, reply: _Reply | None) -> None:
        async def send(answer: bytes) -> None:
            check_payload(answer)
            if reply is not None and not reply.done():
                reply.set_result(answer)

        await self._bus.calls.reply(self._answerer, message, send)

    async def end(self) -> None:
        """See Subscription."""
        await super().end()
        await self._answering.end()


async def _nothing(message: Message) -> None:
    """For those that answer."""


class LocalBus:
    """See `ports_bus.Bus`. One loop."""

    def __init__(self, log: logging.Logger) -> None:
        self.calls = Calls(log)
        self._subscriptions: list[LocalSubscription] = []
        self._turn = 0

    async def start(self) -> None:
        """See Bus."""

    async def close(self) -> None:
        """See Bus."""
        for subscription in self._subscriptions.copy():
            await subscription.end()

    async def publish(self, subject: str, payload: bytes) -> None:
        """See Bus."""
        self._publish(subject, payload, None)

    async def subscribe(
        self, subject: str, handler: Handler, *, queue: str = "", pending_max: int = 65_536
    ) -> LocalSubscription:
        """See Bus."""
        check_subject(subject, pattern=True)
        made = LocalSubscription(self, subject, queue, pending_max, handler)
        self._subscriptions.append(made)
        return made

    async def answer(self, subject: str, answerer: Answerer, *, queue: str = "") -> LocalSubscription:
        """See Bus."""
        check_subject(subject, pattern=True)
        made = LocalAnswering(self, subject, queue, 65_536, answerer)
        self._subscriptions.append(made)
        return made

    async def request(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        """See Bus."""
        reply: _Reply = asyncio.get_running_loop().create_future()
        if not self._publish(subject, payload, reply):
            raise NoAnswer(f"nobody answers on {subject}")
        async with asyncio.timeout(timeout_s):
            return await reply

    def forget(self, subscription: LocalSubscription) -> None:
        """It has ended."""
        with suppress(ValueError):
            self._subscriptions.remove(subscription)

    def _publish(self, subject: str, payload: bytes, reply: _Reply | None) -> int:
        """To everyone, and of each queue to one, in turn; returns to how many."""
        check_subject(subject)
        check_payload(payload)
        found = [each for each in self._subscriptions if matches(each.pattern, subject)]
        groups: dict[str, list[LocalSubscription]] = {}
        for each in found:
            if each.queue:
                groups.setdefault(each.queue, []).append(each)
        chosen = [each for each in found if not each.queue]
        self._turn += 1
        chosen += [members[self._turn % len(members)] for members in groups.values()]
        for each in chosen:
            each.put(Message(subject, payload), reply)
        return len(chosen)

    def health(self) -> ComponentHealth:
        """Always ok."""
        return ComponentHealth("bus", "ok", 0, None, None, {"readers_failed": self.calls.failed})
