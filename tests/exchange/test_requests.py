"""exchange.requests: changes of subscriptions and questions on one connection, at the same time."""

import asyncio
from typing import Any

import orjson
import pytest

from tests.exchange.harness import CLOCK
from tradeback.exchange import requests as module
from tradeback.exchange.requests import Requests
from tradeback.model.errors import ExchangeError

NAMES = [f"s{number}usdt@trade" for number in range(450)]


def never_pauses() -> tuple[bool, int]:
    return False, 0


class Exchange:
    """Keeps what is sent, and answers when told to."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.requests = Requests(lambda text: self.sent.append(orjson.loads(text)), CLOCK)

    async def count(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.sent) < count:
                await asyncio.sleep(0.002)

    def answer(self, *places: int) -> None:
        for place in places:
            assert self.requests.on_answer({"result": None, "id": self.sent[place]["id"]}) is None


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACE_PERIOD_S", 0.05)


async def test_a_question_between_the_messages_of_a_change() -> None:
    """Every answer finds its request, in whatever order they come."""
    exchange = Exchange()
    change = asyncio.create_task(exchange.requests.subscribe(NAMES, never_pauses))
    await exchange.count(1)
    question = asyncio.create_task(exchange.requests.round_trip(never_pauses))
    await exchange.count(4)
    assert len({one["id"] for one in exchange.sent}) == 4
    assert [name for one in exchange.sent if one["method"] == "SUBSCRIBE" for name in one["params"]] == NAMES
    asked = [one["method"] for one in exchange.sent].index("GET_PROPERTY")
    exchange.answer(asked)
    await question
    assert not change.done()
    exchange.answer(*(place for place in (3, 2, 1, 0) if place != asked))
    await change


async def test_unsubscribing() -> None:
    exchange = Exchange()
    change = asyncio.create_task(exchange.requests.unsubscribe(NAMES[:3], never_pauses))
    await exchange.count(1)
    assert (exchange.sent[0]["method"], exchange.sent[0]["params"]) == ("UNSUBSCRIBE", NAMES[:3])
    exchange.answer(0)
    await change


async def test_nothing_to_change_asks_nothing() -> None:
    exchange = Exchange()
    await exchange.requests.subscribe([], never_pauses)
    await exchange.requests.unsubscribe([], never_pauses)
    assert exchange.sent == []


async def test_a_refusal_and_an_end() -> None:
    exchange = Exchange()
    change = asyncio.create_task(exchange.requests.unsubscribe(NAMES[:1], never_pauses))
    await exchange.count(1)
    wrong = exchange.requests.on_answer(
        {"error": {"code": 2, "msg": "too many"}, "id": exchange.sent[0]["id"]}
    )
    assert wrong is not None
    with pytest.raises(ExchangeError, match="too many"):
        await change
    change = asyncio.create_task(exchange.requests.subscribe(NAMES[:1], never_pauses))
    await exchange.count(2)
    exchange.requests.end("it is cut")
    with pytest.raises(ExchangeError, match="it is cut"):
        await change
    with pytest.raises(ExchangeError, match="it is cut"):
        await exchange.requests.subscribe(NAMES[:1], never_pauses)
