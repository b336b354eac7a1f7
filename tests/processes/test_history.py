"""processes.history: klines by way of the engine."""

import asyncio
from typing import Any

from tests.feed.harness import SYMBOLS
from tradeback.derive.lacking import Span
from tradeback.processes.history import KlinesOfEngine

BTC = SYMBOLS[0]


class Line:
    """The engine's end of the link."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> bool:
        self.sent.append(message)
        return True


async def test_what_is_lacking_is_asked_of_the_engine() -> None:
    line = Line()
    klines = KlinesOfEngine(lambda: [line])  # type: ignore[list-item]
    asked = asyncio.create_task(klines.fill(BTC, 1, [Span(60, 120)], 5, 30.0))
    while not line.sent:
        await asyncio.sleep(0)
    (message,) = line.sent
    assert message["ask"] == [1, 1, [[60, 120]], 5, 30.0]
    assert klines.take({"stored": [1, 1]})
    assert klines.generation(1, 1) == 1
    assert klines.generation(1, 2) == 0
    assert klines.take({"filled": message["fill"], "settled": True})
    assert await asked is True
    assert klines.take({"filled": message["fill"], "settled": True}), "late answers are nobody's"
    assert not klines.take({"bars": 1})


async def test_without_an_engine_nothing_comes() -> None:
    klines = KlinesOfEngine(list)
    assert await klines.fill(BTC, 1, [Span(60, 120)], 5, 30.0) is False


async def test_an_engine_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    klines = KlinesOfEngine(lambda: [Line()])  # type: ignore[list-item]
    async with asyncio.timeout(30):
        assert await klines.fill(BTC, 1, [Span(60, 120)], 5, -0.99) is False


async def test_with_a_new_engine_everything_may_have_changed() -> None:
    klines = KlinesOfEngine(list)
    before = klines.generation(1, 1)
    klines.met()
    assert klines.generation(1, 1) != before
