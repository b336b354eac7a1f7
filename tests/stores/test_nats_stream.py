"""stores/nats_stream: one publisher, no hole and no double, on a real server."""

import msgspec
import pytest

from tests.servers.kinds import NatsServer
from tests.sinks.nats_world import connected, node_name
from tradeback.model.config import NatsConfig
from tradeback.model.errors import StoreError
from tradeback.stores.bus_nats import NatsBus
from tradeback.stores.nats_stream import LastChanged, StreamState, TapeStream


def messages(first: int, count: int) -> list[tuple[str, bytes]]:
    return [(f"m-{number}", b"%d" % number) for number in range(first, first + count)]


def config_of(server: NatsServer) -> NatsConfig:
    return NatsConfig(url=server.url, node=node_name(), stream_bytes=1 << 20, stream_age_s=3_600.0)


async def all_of(stream: TapeStream) -> list[bytes | None]:
    first, last = await stream.state()
    return await stream.read_many(range(first, last + 1))


async def test_it_is_made_once_and_follows_the_configuration(nats_server: NatsServer) -> None:
    config = config_of(nats_server)
    async with connected(config) as bus:
        stream = TapeStream(bus, config)
        assert await stream.holds() is None
        with pytest.raises(StoreError, match="has no stream"):
            await stream.state()
        for _ in range(3):
            await stream.ensure()
        assert (await stream.holds(), await stream.state()) == (0, StreamState(1, 0))
        await stream.append(messages(1, 3), 0)
        larger = msgspec.structs.replace(config, stream_bytes=1 << 21, stream_age_s=60.0)
        await TapeStream(bus, larger).ensure()
        held = (await bus.jetstream(5.0).stream_info(stream.name)).config
        assert (held.max_bytes, held.max_age, held.allow_direct, held.subjects) == (
            1 << 21, 60.0, True, [stream.subject],
        )  # fmt: skip
        assert await stream.holds() == 3


async def test_nothing_is_changed_where_nothing_differs(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(nats_server)
    async with connected(config) as bus:
        stream = TapeStream(bus, config)
        await stream.ensure()
        made = await bus.jetstream(5.0).stream_info(stream.name)

        async def never(self: object, wanted: object) -> None:
            raise AssertionError("it was updated")

        monkeypatch.setattr(type(bus.jetstream(5.0)), "update_stream", never)
        await stream.ensure()
        assert (await bus.jetstream(5.0).stream_info(stream.name)).config == made.config


async def test_what_follows_a_lost_message_is_refused(nats_server: NatsServer) -> None:
    config = config_of(nats_server)
    async with connected(config) as bus:
        stream = TapeStream(bus, config)
        await stream.ensure()
        assert await stream.append(messages(1, 5), 0) == 5
        # Message 6 is lost on the way: 7 to 9 name it as the one before them.
        with pytest.raises(LastChanged):
            await stream.append(messages(7, 3), 6)
        assert await all_of(stream) == [b"%d" % number for number in range(1, 6)]
        assert await stream.append(messages(5, 1), 4) == 5, "the very same message again is no harm"
        with pytest.raises(LastChanged):
            await stream.append(messages(50, 1), 4)
        assert await stream.append(messages(6, 4), 5) == 9
        assert await all_of(stream) == [b"%d" % number for number in range(1, 10)]
        assert await stream.read(99) is None
        assert await stream.published_s(99) is None
        assert abs((await stream.published_s(9) or 0) - (await stream.published_s(1) or 0)) < 60


async def test_it_survives_a_crash_and_long_silence(nats_server: NatsServer) -> None:
    """Numbers, not the server's memory of ids, tell what is next: that forgets after two minutes."""
    config = msgspec.structs.replace(config_of(nats_server))
    async with connected(config) as bus:
        stream = TapeStream(bus, config)
        await stream.ensure()
        await stream.append(messages(1, 3), 0)
        await bus.jetstream(5.0).purge_stream(stream.name)
        nats_server.kill()
        nats_server.start()
        await bus.ready(60)
        await back(bus, stream)
        assert await stream.state() == StreamState(4, 3)
        assert await stream.append(messages(4, 2), 3) == 5


async def back(bus: NatsBus, stream: TapeStream) -> None:
    """A server that has just come may still be reading its streams."""
    for _ in range(100):
        try:
            await bus.ready(60)
            await stream.state()
            return
        except StoreError:
            continue


async def test_without_a_connection(nats_server: NatsServer) -> None:
    config = config_of(nats_server)
    async with connected(config) as bus:
        stream = TapeStream(bus, config)
    with pytest.raises(StoreError, match="not connected"):
        await stream.state()
