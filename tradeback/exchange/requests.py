"""Requests on one connection: subscriptions in chunks, at the exchange's pace, every one acknowledged.

Shapes of answers and errors: binance.md section 2.1. Errors come nested or flat, with or without an id.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from tradeback.exchange.budget import Budget
from tradeback.exchange.streams import control_messages
from tradeback.model.clock import Clock
from tradeback.model.errors import ExchangeError
from tradeback.model.limits import CONTROL_MESSAGES_PER_SECOND

ANSWER_WAIT_S = 10.0
"""How long the exchange may take to acknowledge a subscription."""
PACE_PERIOD_S = 1.25
"""Messages that left within a second may arrive closer together: the exchange counts on its side."""


def is_answer(message: dict[str, Any]) -> bool:
    """Is this message an answer to a request, and no event?"""
    return (
        "stream" not in message
        and "e" not in message
        and ("id" in message or "error" in message or "code" in message)
    )


class Requests:
    """The requests of one connection. `send` writes one text frame; loop thread only."""

    def __init__(self, send: Callable[[bytes], None], clock: Clock) -> None:
        self._send, self._clock = send, clock
        self._pace = Budget(CONTROL_MESSAGES_PER_SECOND, PACE_PERIOD_S)
        self._next_id = 1
        self._pending: dict[int, asyncio.Future[None]] = {}
        self._ended: str | None = None

    async def subscribe(self, names: Sequence[str], pauses: Callable[[], tuple[bool, int]]) -> None:
        """SUBSCRIBE to `names`; returns when all is acknowledged, at once when there are none.

        ExchangeError when the exchange refuses, says nothing for ANSWER_WAIT_S, or the connection ends.
        `pauses` says whether nothing is read at the moment, and how often that was so: no answer can come
        then, so waiting begins anew.
        """
        await self._change("SUBSCRIBE", names, pauses)

    async def unsubscribe(self, names: Sequence[str], pauses: Callable[[], tuple[bool, int]]) -> None:
        """UNSUBSCRIBE from `names`, like `subscribe`: once this returns nothing of them comes any more."""
        await self._change("UNSUBSCRIBE", names, pauses)

    async def _change(
        self, method: str, names: Sequence[str], pauses: Callable[[], tuple[bool, int]]
    ) -> None:
        messages = list(control_messages(method, names, self._next_id))
        # Their ids are taken at once: between two of them somebody else may ask something.
        first, self._next_id = self._next_id, self._next_id + len(messages)
        waiting = [await self._ask(number, message) for number, message in enumerate(messages, first)]
        if waiting:
            await self._answered(waiting, pauses)

    async def round_trip(self, pauses: Callable[[], tuple[bool, int]]) -> None:
        """Ask something small and wait for the answer: it comes after all data that the exchange had queued
        on this connection before. Raises like `subscribe`."""
        number, self._next_id = self._next_id, self._next_id + 1
        message = b'{"method":"GET_PROPERTY","params":["combined"],"id":%d}' % number
        await self._answered([await self._ask(number, message)], pauses)

    async def passed(self, pauses: Callable[[], tuple[bool, int]]) -> bool:
        """Until everything the exchange had queued on this connection has come: it answers in order. False
        when it does not answer, or the connection ends."""
        if self._ended is not None:
            return False
        try:
            await self.round_trip(pauses)
        except ExchangeError:
            return False
        return True

    def take_turn(self) -> float:
        """Seconds until one more message may leave, a pong; its place is taken by that."""
        return self._pace.take(self._clock.steady_ns())

    async def _ask(self, request_id: int, message: bytes) -> "asyncio.Future[None]":
        """Send the request with this id when its turn comes; what comes back is its answer."""
        await asyncio.sleep(self.take_turn())
        if self._ended is not None:
            raise ExchangeError(self._ended)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_seen)
        self._pending[request_id] = answer
        self._send(message)
        return answer

    async def _answered(
        self, waiting: Sequence["asyncio.Future[None]"], pauses: Callable[[], tuple[bool, int]]
    ) -> None:
        """Until all answers have come. While nothing is read waiting begins anew."""
        acknowledged = asyncio.gather(*waiting)
        acknowledged.add_done_callback(_seen)
        while True:
            before = pauses()
            try:
                async with asyncio.timeout(ANSWER_WAIT_S):
                    await asyncio.shield(acknowledged)
                return
            except TimeoutError:
                if pauses() == before and not before[0]:
                    acknowledged.cancel()
                    raise ExchangeError("the exchange did not acknowledge a request") from None

    def on_answer(self, message: dict[str, Any]) -> str | None:
        """An answer has come. Returns what is wrong, in words, when the exchange refused something."""
        request = message.get("id")
        answer = self._pending.pop(request, None) if type(request) is int else None
        wrong = message.get("error") or (message if "code" in message else None)
        if wrong is None:
            if answer is not None and not answer.done():
                answer.set_result(None)
            return None
        text = "the exchange refused a request: " + (
            f"{wrong.get('code')} {wrong.get('msg')}" if isinstance(wrong, dict) else str(wrong)[:200]
        )
        if answer is None and request is None and self._pending:
            # One that the exchange could not read comes back without its id; answers come in order.
            answer = self._pending.pop(next(iter(self._pending)))
        if answer is not None and not answer.done():
            answer.set_exception(ExchangeError(text))
        return text

    def end(self, reason: str) -> None:
        """The connection has ended: whoever waits for an answer is told."""
        self._ended = reason
        pending, self._pending = self._pending, {}
        for answer in pending.values():
            if not answer.done():
                answer.set_exception(ExchangeError(reason))


def _seen(answer: "asyncio.Future[Any]") -> None:
    """The first failure ends a subscription; the others' need no warning."""
    if not answer.cancelled():
        answer.exception()
