"""stores/bus_nats: what a server's failures do to the bus, and what it says of them."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from nats.errors import NoRespondersError

from tests.servers.fixtures import need
from tests.servers.kinds import NatsServer
from tests.servers.process import free_port
from tests.stores.test_bus import Box
from tradeback.model.config import NatsConfig
from tradeback.model.errors import StoreError
from tradeback.stores import bus_nats
from tradeback.stores.bus_nats import NatsBus, explain, shown

LOG = logging.getLogger("tests.bus")
WAIT_S = 60.0
PERMISSIONS = """
authorization { users = [
  { user: reader, password: hunter2, permissions: { publish: ["_INBOX.>"], subscribe: [">"] } }
] }
"""


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[NatsBus]:
    made = NatsBus(NatsConfig(url=nats_server.url), LOG)
    await made.start()
    await made.ready(WAIT_S)
    yield made
    await made.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[NatsServer]:
    """A server that asks for credentials."""
    need(NatsServer)
    config = tmp_path / "nats.conf"
    config.write_text(PERMISSIONS)
    with NatsServer(tmp_path / "server", "-c", str(config)) as server:
        yield server


async def refused(url: str) -> str:
    """What a bus says that cannot connect."""
    bus = NatsBus(NatsConfig(url=url), LOG)
    await bus.start()
    try:
        async with asyncio.timeout(WAIT_S):
            while bus.health().state != "down":
                await asyncio.sleep(0.01)
        with pytest.raises(StoreError) as caught:
            await bus.publish("a.b", b"")
        assert str(caught.value) == bus.health().last_error
        return str(caught.value)
    finally:
        await bus.close()


async def test_nobody_there(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    words = await refused(f"nats://me:hunter2@127.0.0.1:{port}")
    assert words.startswith(f"NATS at 127.0.0.1:{port} cannot be reached (")
    assert words.endswith("start the server, or correct NATS_URL")
    assert "\n" not in words
    assert "hunter2" not in caplog.text + words
    assert caplog.text.count("cannot be reached") == 1


async def test_wrong_credentials(guarded: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    for user in ("", "reader:wrong@", "token@"):
        words = await refused(guarded.url.replace("//", f"//{user}"))
        assert "refuses the credentials (Authorization Violation): write them into NATS_URL" in words
        assert "wrong@" not in words + caplog.text


async def test_what_is_not_permitted_is_told(guarded: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    bus = NatsBus(NatsConfig(url=guarded.url.replace("//", "//reader:hunter2@")), LOG)
    await bus.start()
    await bus.ready(WAIT_S)
    try:
        await bus.publish("a.b", b"")
        async with asyncio.timeout(WAIT_S):
            while bus.health().last_error is None:
                await asyncio.sleep(0.01)
        assert "does not permit this user" in str(bus.health().last_error)
        assert "a.b" in str(bus.health().last_error)
        assert "hunter2" not in caplog.text
    finally:
        await bus.close()


async def test_a_flush_comes_behind_all_that_was_published(guarded: NatsServer) -> None:
    """The server answers the PING of a flush after it has dealt with every message before it."""
    bus = NatsBus(NatsConfig(url=guarded.url.replace("//", "//reader:hunter2@")), LOG)
    await bus.start()
    await bus.ready(WAIT_S)
    try:
        for number in range(200):
            before = bus.denials.count
            for _ in range(1 + number % 3):
                await bus.publish("a.b", b"x" * (number % 7) * 1_000)
            await bus.flush()
            assert bus.denials.count == before + 1 + number % 3
            with pytest.raises(StoreError, match="does not permit this user"):
                bus.check_permitted(before, "a.")
            bus.check_permitted(before, "b.")
        assert (bus.health().state, bus.connects) == ("degraded", 1)
    finally:
        await bus.close()


@pytest.mark.parametrize("crash", [True, False])
async def test_a_restarted_server_finds_its_readers_again(
    bus: NatsBus, nats_server: NatsServer, crash: bool, caplog: pytest.LogCaptureFixture
) -> None:
    box = Box()

    async def answer(message: object) -> bytes:
        return b"here"

    await bus.subscribe("restart.x", box.put)
    await bus.answer("restart.r", answer)
    told = asyncio.Event()
    bus.on_connect.append(told.set)
    if crash:
        nats_server.kill()
    else:
        nats_server.stop()
    async with asyncio.timeout(WAIT_S):
        while bus.connected.is_set():
            await asyncio.sleep(0.01)
    with pytest.raises(StoreError):
        await bus.publish("restart.x", b"lost")
    assert bus.health().state == "down"
    nats_server.start()
    await bus.ready(WAIT_S)
    await bus.publish("restart.x", b"found")
    assert [message.payload for message in await box.wait(1)] == [b"found"]
    assert await bus.request("restart.r", b"", WAIT_S) == b"here"
    assert told.is_set()
    assert (bus.health().state, bus.health().last_error, bus.connects) == ("ok", None, 2)
    assert "connected to NATS" in caplog.text


async def test_a_server_that_hangs_is_left_and_found_again(nats_server: NatsServer) -> None:
    bus, box = NatsBus(NatsConfig(url=nats_server.url, timeout_s=0.2), LOG), Box()
    await bus.start()
    await bus.ready(WAIT_S)
    await bus.subscribe("hang.x", box.put)
    nats_server.pause()
    with pytest.raises(TimeoutError):
        await bus.request("hang.y", b"", 0.2)
    async with asyncio.timeout(WAIT_S):
        while bus.connected.is_set():
            await asyncio.sleep(0.05)
    nats_server.resume()
    await bus.ready(WAIT_S)
    await bus.publish("hang.x", b"1")
    assert (await box.wait(1))[-1].payload == b"1"
    await bus.close()


async def test_what_took_too_long_while_a_server_hung_does_not_end_the_connection(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bus_nats, "FLUSH_S", 0.05)
    bus, box = NatsBus(NatsConfig(url=nats_server.url, timeout_s=60), LOG), Box()
    await bus.start()
    await bus.ready(WAIT_S)
    await bus.subscribe("late.x", box.put)
    nats_server.pause()
    with pytest.raises(StoreError, match="does not answer in time"):
        await bus.flush()
    cancelled = asyncio.create_task(bus.flush())
    await asyncio.sleep(0.01)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    nats_server.resume()  # and the PONGs come nevertheless
    await bus.publish("late.x", b"1")
    assert (await box.wait(1))[-1].payload == b"1"
    assert bus.connects == 1
    assert "Traceback" not in caplog.text
    await bus.close()


@pytest.mark.parametrize("end", [NoRespondersError, None])
async def test_a_cancellation_that_the_library_swallows_is_not_lost(
    bus: NatsBus, monkeypatch: pytest.MonkeyPatch, end: type[Exception] | None
) -> None:
    begun = asyncio.Event()

    async def swallow(*arguments: object, **more: object) -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if end is not None:
            raise end

    monkeypatch.setattr(bus.client, "publish", swallow)
    monkeypatch.setattr(bus.client, "request", swallow)
    for call in (bus.publish("swallow.x", b""), bus.request("swallow.x", b"", WAIT_S)):
        begun.clear()
        task = asyncio.create_task(call)
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_it_closes_while_nobody_is_there() -> None:
    bus = NatsBus(NatsConfig(url=f"nats://127.0.0.1:{free_port()}"), LOG)
    await bus.start()
    async with asyncio.timeout(WAIT_S):
        await bus.close()


def test_servers_are_shown_without_credentials() -> None:
    assert shown("nats://me:secret@one:1, tls://two") == "one:1, two:4222"
    assert "secret" not in repr(NatsConfig(url="nats://me:secret@one"))


def test_other_errors_are_passed_on() -> None:
    assert explain(StoreError("as it is"), "x") == "as it is"
    assert explain(RuntimeError("odd"), "one:1") == "NATS at one:1: odd"
