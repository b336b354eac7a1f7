"""What both buses do with their readers: call them, and survive what they raise."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tradeback.ops.tasks import end
from tradeback.stores.ports_bus import Answerer, Handler, Message

ANSWERS_MAX = 64
"""Requests of one subscription that are being answered at once; further ones wait."""


class Calls:
    """Runs handlers of one bus and counts what they raise."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self.failed = 0
        """Handlers and answerers that raised."""

    async def handle(self, handler: Handler, message: Message) -> None:
        """Call a handler; whatever it raises is logged."""
        try:
            await handler(message)
        except Exception as error:  # the boundary to a reader: the next message is for him again
            self._note(message, error)

    async def reply(
        self, answerer: Answerer, message: Message, send: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Call an answerer and send what it says."""
        try:
            await send(await answerer(message))
        except Exception as error:  # the boundary to a reader: the asker's time runs out
            self._note(message, error)

    def _note(self, message: Message, error: Exception) -> None:
        self.failed += 1
        self._log.error("bus: the reader of %s failed: %r", message.subject, error)


class Answering:
    """The tasks of one answering subscription."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(ANSWERS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` beside the caller, once there is a slot."""
        await self._slots.acquire()
        task = asyncio.create_task(self._run(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        finally:
            self._slots.release()

    async def end(self) -> None:
        """Cancel what is being answered."""
        await end(self._tasks)
