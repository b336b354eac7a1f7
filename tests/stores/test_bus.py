"""The role of the bus: one contract for both, and opening what is configured."""

import asyncio
import builtins
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.servers.fixtures import need
from tests.servers.kinds import NatsServer
from tradeback.model.config import Config, NatsConfig
from tradeback.model.errors import StartupError
from tradeback.stores import bus as opening
from tradeback.stores.bus_local import LocalBus
from tradeback.stores.bus_subjects import PAYLOAD_BYTES_MAX, check_subject, matches
from tradeback.stores.ports_bus import Bus, Message, NoAnswer

LOG = logging.getLogger("tests.bus")
WAIT_S = 30.0


@pytest.fixture(params=["local", "nats"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    if request.param == "local":
        made: Bus = opening.open_bus(Config(), LOG)
        assert isinstance(made, LocalBus)
        await made.start()
    else:
        need(NatsServer)
        server = request.getfixturevalue("nats_server")
        made = opening.open_bus(Config(nats=NatsConfig(url=server.url)), LOG)
        await made.start()
        await made.ready(WAIT_S)  # type: ignore[attr-defined]
    yield made
    await made.close()
    await made.close()


class Box:
    """Collects messages."""

    def __init__(self) -> None:
        self.held: list[Message] = []
        self._came = asyncio.Event()

    async def put(self, message: Message) -> None:
        self.held.append(message)
        self._came.set()

    async def wait(self, count: int) -> list[Message]:
        async with asyncio.timeout(WAIT_S):
            while len(self.held) < count:
                self._came.clear()
                await self._came.wait()
        return self.held


async def test_messages_arrive_in_order(bus: Bus) -> None:
    box = Box()
    await bus.subscribe("a.b", box.put)
    for number in range(100):
        await bus.publish("a.b", b"%d" % number)
    assert await box.wait(100) == [Message("a.b", b"%d" % number) for number in range(100)]


async def test_wildcards(bus: Bus) -> None:
    boxes = {pattern: Box() for pattern in ("w.*.c", "w.>", "w.b.c", "w.b", "*.b.*")}
    for pattern, box in boxes.items():
        await bus.subscribe(pattern, box.put)
    for subject in ("w.b.c", "w.x.c", "w.b", "w.b.c.d", "w"):
        await bus.publish(subject, subject.encode())
    await boxes["w.>"].wait(4)
    await bus.publish("w.end", b"")
    await boxes["w.>"].wait(5)
    found = {pattern: [message.subject for message in box.held] for pattern, box in boxes.items()}
    assert found == {
        "w.*.c": ["w.b.c", "w.x.c"],
        "w.>": ["w.b.c", "w.x.c", "w.b", "w.b.c.d", "w.end"],
        "w.b.c": ["w.b.c"],
        "w.b": ["w.b"],
        "*.b.*": ["w.b.c"],
    }


async def test_of_a_queue_one_gets_each_message(bus: Bus) -> None:
    members, outside = [Box(), Box()], Box()
    for member in members:
        await bus.subscribe("q.x", member.put, queue="workers")
    await bus.subscribe("q.x", outside.put)
    for number in range(60):
        await bus.publish("q.x", b"%d" % number)
    await outside.wait(60)
    async with asyncio.timeout(WAIT_S):
        while sum(len(member.held) for member in members) < 60:
            await asyncio.sleep(0.01)
    numbers = sorted(int(message.payload) for member in members for message in member.held)
    assert numbers == list(range(60))
    assert all(member.held for member in members)


async def test_a_reader_that_raises_gets_the_next_message(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    box = Box()

    async def fragile(message: Message) -> None:
        if message.payload == b"bad":
            raise RuntimeError("this one is bad")
        await box.put(message)

    await bus.subscribe("f.x", fragile)
    await bus.publish("f.x", b"bad")
    await bus.publish("f.x", b"good")
    await box.wait(1)
    assert "this one is bad" in caplog.text
    details = bus.health().details
    assert details is not None
    assert details["readers_failed"] == 1


async def test_a_slow_reader_loses_its_own_messages_only(bus: Bus) -> None:
    busy, gate, slow, quick = asyncio.Event(), asyncio.Event(), Box(), Box()

    async def wait(message: Message) -> None:
        busy.set()
        await gate.wait()
        await slow.put(message)

    subscription = await bus.subscribe("s.x", wait, pending_max=10)
    await bus.subscribe("s.x", quick.put)
    await bus.publish("s.x", b"0")
    # Else it may take its first one, and so have room for another, when fifty are lost already.
    await asyncio.wait_for(busy.wait(), WAIT_S)
    for number in range(1, 100):
        await bus.publish("s.x", b"%d" % number)
    await quick.wait(100)
    async with asyncio.timeout(WAIT_S):
        while subscription.dropped < 80:
            await asyncio.sleep(0.01)
    gate.set()
    held = await slow.wait(100 - subscription.dropped)
    numbers = [int(message.payload) for message in held]
    assert numbers[:11] == list(range(11)), "one at work, ten that wait"
    assert numbers == sorted(set(numbers)), "what comes when there is room again comes once and in order"
    assert len(held) + subscription.dropped == 100


async def test_who_has_ended_gets_nothing(bus: Bus) -> None:
    box, other = Box(), Box()
    subscription = await bus.subscribe("e.x", box.put)
    await bus.subscribe("e.x", other.put)
    await bus.publish("e.x", b"1")
    await box.wait(1)
    await subscription.end()
    await subscription.end()
    await bus.publish("e.x", b"2")
    await other.wait(2)
    assert len(box.held) == 1


async def test_requests_are_answered_side_by_side(bus: Bus) -> None:
    both = asyncio.Event()
    asked: list[bytes] = []

    async def answer(message: Message) -> bytes:
        asked.append(message.payload)
        if len(asked) == 2:
            both.set()
        await both.wait()
        return message.payload.upper()

    await bus.answer("r.*", answer, queue="tradeback")
    async with asyncio.timeout(WAIT_S):
        found = await asyncio.gather(*(bus.request("r.x", text, WAIT_S) for text in (b"one", b"two")))
    assert found == [b"ONE", b"TWO"]


async def test_nobody_listens_is_told_at_once_and_nobody_answers_in_time(bus: Bus) -> None:
    with pytest.raises(NoAnswer, match=r"n\.x"):
        await bus.request("n.x", b"", WAIT_S)

    async def never(message: Message) -> bytes:
        raise RuntimeError("no answer from me")

    subscription = await bus.answer("n.x", never)
    with pytest.raises(TimeoutError):
        await bus.request("n.x", b"", 0.05)
    await subscription.end()
    with pytest.raises(NoAnswer):
        await bus.request("n.x", b"", WAIT_S)


@pytest.mark.parametrize("subject", ["", "a..b", ".a", "a.", "a b", "a.*", "a.>", "a\r\nb", "*"])
async def test_what_is_no_subject_is_refused(bus: Bus, subject: str) -> None:
    with pytest.raises(ValueError, match="no subject"):
        await bus.publish(subject, b"")
    with pytest.raises(ValueError, match="no subject"):
        await bus.request(subject, b"", 1.0)


@pytest.mark.parametrize("pattern", ["", "a..b", "a.>.b", "a b", "a*.b", "a.b>"])
async def test_what_is_no_pattern_is_refused(bus: Bus, pattern: str) -> None:
    with pytest.raises(ValueError, match="no subject"):
        await bus.subscribe(pattern, Box().put)


async def test_a_payload_has_a_limit(bus: Bus) -> None:
    box = Box()
    await bus.subscribe("l.x", box.put)
    with pytest.raises(ValueError, match="at most"):
        await bus.publish("l.x", bytes(PAYLOAD_BYTES_MAX + 1))
    await bus.publish("l.x", bytes(PAYLOAD_BYTES_MAX))
    assert len((await box.wait(1))[0].payload) == PAYLOAD_BYTES_MAX


async def test_health_is_ok(bus: Bus) -> None:
    health = bus.health()
    assert (health.name, health.state, health.last_error) == ("bus", "ok", None)


def test_matching() -> None:
    assert matches("a.>", "a.b.c")
    assert not matches("a.>", "a")
    assert matches(">", "a")
    assert not matches("a.*", "a.b.c")
    check_subject("a.*.>", pattern=True)


def test_a_missing_library_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "tradeback.stores.bus_nats":
            raise ModuleNotFoundError("No module named 'nats'", name="nats")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(StartupError, match=r"NATS_URL is set and nats is not installed: pip install"):
        opening.open_bus(Config(nats=NatsConfig(url="nats://localhost:4222")), LOG)
