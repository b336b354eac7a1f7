"""edge/hub: a hub's tape is copied whole, whatever is lost on the way, or it is said what is missing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.edge.hub_world import Hub, check_same, copying, settle, trim
from tests.servers.kinds import NatsServer
from tests.sinks.nats_world import WAIT_S, connected, rows_of
from tradeback.edge import hub as hub_module
from tradeback.stores.nats_stream import TapeStream
from tradeback.tape import follow
from tradeback.tape.state import load_state, save_state


@pytest.fixture
async def hub(tmp_path: Path, nats_server: NatsServer) -> AsyncIterator[Hub]:
    made = Hub(tmp_path / "hub", nats_server.url)
    yield made
    await made.stop()


async def test_what_there_was_and_what_comes(hub: Hub, tmp_path: Path) -> None:
    hub.append(3_000)
    await hub.publish()
    await settle(hub, tmp_path / "edge")
    async with copying(hub, tmp_path / "edge") as copy:
        await copy.caught_up()
        for _ in range(30):
            hub.append(37)
            await asyncio.sleep(0.002)
        await hub.publish()
        await copy.until(hub.tape.next_sequence)
        assert copy.hub.live_frames > 0
        assert copy.hub.health().state == "ok"
        assert copy.hub.health().name == "line:hub"
    check_same(hub.tape, tmp_path / "edge")


async def test_holes_in_live_messages_are_read_from_the_stream(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.append(100)
    await hub.publish()
    await settle(hub, tmp_path / "edge")
    async with copying(hub, tmp_path / "edge") as copy:
        await copy.caught_up()
        whole = copy.hub._on_message
        number = 0

        async def leaky(message: object) -> None:
            nonlocal number
            number += 1
            if number % 3:
                await whole(message)  # type: ignore[arg-type]

        monkeypatch.setattr(copy.hub, "_on_message", leaky)
        for subscription in copy.hub._bus._subscriptions:
            await subscription.end()
        await copy.hub._bus.subscribe(copy.hub.stream.subject, copy.hub._on_message)
        for _ in range(40):
            hub.append(11)
            await hub.publish()
        await copy.until(hub.tape.next_sequence)
        assert copy.hub.holes > 0
        assert copy.hub.health().state == "ok"
    check_same(hub.tape, tmp_path / "edge")


async def test_the_last_messages_before_silence_are_lost(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "LIVE_BYTES_MAX", 0)
    monkeypatch.setattr(hub_module, "POLL_S", 0.05)
    hub.append(100)
    await hub.publish()
    await settle(hub, tmp_path / "edge")
    async with copying(hub, tmp_path / "edge") as copy:
        await copy.caught_up()
        hub.append(50)
        await hub.publish()
        await copy.until(hub.tape.next_sequence)
        assert copy.hub.overflows > 0
        assert copy.hub.live_frames == 0
    check_same(hub.tape, tmp_path / "edge")


@pytest.mark.parametrize("crash", ["process", "machine"])
async def test_it_goes_on_behind_where_it_was(hub: Hub, tmp_path: Path, crash: str) -> None:
    hub.append(2_000)
    await hub.publish()
    await settle(hub, tmp_path / "edge")
    hub.append(2_000)
    await hub.publish()
    if crash == "machine":
        state = load_state(tmp_path / "edge" / "tape")
        assert state is not None
        changed = {name: getattr(state, name) for name in state.__struct_fields__}
        save_state(tmp_path / "edge" / "tape", type(state)(**{**changed, "clean": False, "boot_id": "x"}))
    async with copying(hub, tmp_path / "edge") as copy:
        assert copy.tape.next_sequence == 2_001
        await copy.until(4_001)
        assert copy.tape.epoch == hub.tape.epoch
        assert copy.reader.epochs()[-1] == (hub.tape.epoch, 1)
    check_same(hub.tape, tmp_path / "edge")


async def test_a_new_edge_begins_with_the_oldest_that_is_kept(hub: Hub, tmp_path: Path) -> None:
    for _ in range(10):
        hub.append(500)
        await hub.publish()
    await trim(hub, 4)
    async with copying(hub, tmp_path / "edge") as copy:
        turn = await copy.turned()
    assert turn.place.epoch == hub.tape.epoch
    assert turn.place.sequence > 1
    turn.apply(tmp_path / "edge" / "tape")
    await settle(hub, tmp_path / "edge")
    check_same(hub.tape, tmp_path / "edge")


async def test_what_the_stream_has_forgotten_is_told(hub: Hub, tmp_path: Path) -> None:
    hub.append(500)
    await hub.publish()
    await settle(hub, tmp_path / "edge")
    for _ in range(10):
        hub.append(500)
        await hub.publish()
    await trim(hub, 2)
    async with copying(hub, tmp_path / "edge") as copy:
        turn = await copy.turned()
    assert turn.lost.startswith("records 501 to ")
    assert "are not in the stream any more" in turn.lost
    turn.apply(tmp_path / "edge" / "tape")
    await settle(hub, tmp_path / "edge")
    check_same(hub.tape, tmp_path / "edge")


async def test_the_hub_loses_its_end_and_begins_an_epoch(hub: Hub, tmp_path: Path) -> None:
    hub.append(1_000)
    await hub.publish()
    await settle(hub, tmp_path / "edge")
    epoch = hub.tape.epoch
    await hub.stop()
    # The machine has crashed: 300 records that the edge has seen are gone, others take their place.
    follow.turn(hub.folder / "tape", follow.Place(epoch ^ 1, 701))
    hub.__init__(hub.folder, hub.config.nats.url, hub.node)  # type: ignore[misc]
    hub.seed = 99
    hub.append(800)
    await hub.publish()
    async with copying(hub, tmp_path / "edge") as copy:
        turn = await copy.turned()
    assert (turn.place, turn.lost) == (follow.Place(epoch ^ 1, 701), "")
    turn.apply(tmp_path / "edge" / "tape")
    await settle(hub, tmp_path / "edge")
    check_same(hub.tape, tmp_path / "edge")
    assert [known for known, _ in follow_history(tmp_path / "edge")] == [epoch, epoch ^ 1]


def follow_history(folder: Path) -> list[tuple[int, int]]:
    state = load_state(folder / "tape")
    assert state is not None
    return list(state.epochs)


async def test_damaged_messages_are_passed_over_and_counted(hub: Hub, tmp_path: Path) -> None:
    hub.append(100)
    await hub.publish()
    await settle(hub, tmp_path / "edge")
    async with copying(hub, tmp_path / "edge") as copy, connected(hub.config.nats) as bus:
        await copy.caught_up()
        frame = await TapeStream(bus, hub.config.nats).read(1)
        assert frame is not None
        broken = bytearray(frame)
        broken[-1] ^= 1
        await bus.client.publish(copy.hub.stream.subject + "x", bytes(broken))
        await copy.hub._on_message(type("M", (), {"payload": bytes(broken)})())
        hub.append(100)
        await hub.publish()
        await copy.until(201)
        assert copy.hub.damaged == 1
    check_same(hub.tape, tmp_path / "edge")


@pytest.mark.parametrize("how", ["kill", "restart"])
async def test_the_server_breaks_in_full_stream(
    hub: Hub, tmp_path: Path, nats_server: NatsServer, how: str
) -> None:
    hub.append(100)
    await hub.publish()
    await settle(hub, tmp_path / "edge")
    async with copying(hub, tmp_path / "edge") as copy:
        for _ in range(3):
            for _ in range(20):
                hub.append(50)
                await asyncio.sleep(0.002)
            await asyncio.to_thread(nats_server.kill if how == "kill" else nats_server.stop)
            hub.append(50)
            await asyncio.to_thread(nats_server.start)
        await hub.publish()
        await copy.until(hub.tape.next_sequence)
        async with asyncio.timeout(WAIT_S):
            while copy.hub.health().state != "ok":
                await asyncio.sleep(0.01)
    check_same(hub.tape, tmp_path / "edge")


async def test_no_stream_is_told_with_the_remedy(hub: Hub, tmp_path: Path) -> None:
    async with copying(hub, tmp_path / "edge") as copy:
        async with asyncio.timeout(WAIT_S):
            while copy.hub.last_error is None:
                await asyncio.sleep(0.01)
        assert copy.hub.health().state == "down"
        assert f"has no stream tradeback_{hub.node}" in copy.hub.last_error
        assert "correct NATS_NODE" in copy.hub.last_error
        hub.tape.append(rows_of(10))
        await hub.publish()
        turn = await copy.turned()
        assert turn.place.sequence == 1
