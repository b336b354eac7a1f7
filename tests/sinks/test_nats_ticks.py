"""sinks/nats_ticks: the tape in a stream exactly once, whatever happens to the server; live without one."""

import asyncio
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from tests.servers.fixtures import need
from tests.servers.kinds import NatsServer
from tests.servers.process import free_port
from tests.sinks.nats_world import (
    SYMBOLS,
    WAIT_S,
    check_exactly_once,
    config_of,
    connected,
    drained,
    drains_of,
    node_name,
    open_tape,
    rows_of,
    stretches,
)
from tests.stores.test_bus import Box
from tradeback.model.record import GAP, TRADE, Rows, empty_rows
from tradeback.sinks import nats
from tradeback.sinks.drain import Drain
from tradeback.tape.writer import Tape
from tradeback.wire.v2 import Decoder
from tradeback.wire.v2_exact import ExactCodec

NAME = "nats:ticks"


@pytest.fixture
def tape(tmp_path: Path) -> Iterator[Tape]:
    with open_tape(tmp_path) as made:
        yield made


async def feed(tape: Tape, batches: int, seed: int = 0) -> None:
    """Records in batches of a read's size."""
    for number in range(batches):
        tape.append(rows_of(random.Random(seed + number).randrange(1, 400), seed + number))
        await asyncio.sleep(0.002)


async def until_down(drain: Drain) -> str:
    async with asyncio.timeout(WAIT_S):
        while drain.health().state != "down" or drain.last_error is None:
            await asyncio.sleep(0.01)
    return drain.last_error


async def test_the_stream_holds_the_tape(tape: Tape, tmp_path: Path, nats_server: NatsServer) -> None:
    config = config_of(tmp_path, nats_server.url, node_name())
    tape.append(rows_of(10_000))
    drain = drains_of(config)[NAME]
    async with connected(config.nats) as bus:
        live = Box()
        await bus.subscribe(f"tradeback.ticks.{config.nats.node}", live.put)
        drain.start()
        await feed(tape, 20)
        await drained(drain, tape)
        await drain.stop()
        found = await stretches(config.nats)
        check_exactly_once(found, tape)
        codec = ExactCodec()
        assert [codec.decode(message.payload).first for message in await live.wait(len(found))] == [
            stretch.first for stretch in found
        ]
    assert (drain.errors, drain.health().state) == (0, "ok")


@pytest.mark.parametrize("how", ["kill", "restart", "pause"])
async def test_a_server_that_breaks_in_full_stream(
    tape: Tape, tmp_path: Path, nats_server: NatsServer, how: str
) -> None:
    config = config_of(tmp_path, nats_server.url, node_name())
    drain = drains_of(config)[NAME]
    drain.start()
    feeding = asyncio.create_task(feed(tape, 250))
    for _ in range(1 if how == "pause" else 2):
        before = drain.batches
        async with asyncio.timeout(WAIT_S):
            while drain.batches < before + 5:
                await asyncio.sleep(0.001)
        if how == "pause":
            nats_server.pause()
            await until_down_or(drain)
            nats_server.resume()
        else:
            await asyncio.to_thread(nats_server.kill if how == "kill" else nats_server.stop)
            await asyncio.to_thread(nats_server.start)
    await feeding
    await drained(drain, tape)
    await drain.stop()
    check_exactly_once(await stretches(config.nats), tape)


async def until_down_or(drain: Drain) -> None:
    """Until the drain has noticed."""
    errors = drain.errors
    async with asyncio.timeout(WAIT_S):
        while drain.errors == errors:
            await asyncio.sleep(0.01)


async def test_a_drain_that_is_killed_goes_on_behind_the_stream(
    tape: Tape, tmp_path: Path, nats_server: NatsServer
) -> None:
    config = config_of(tmp_path, nats_server.url, node_name())
    for seed in range(3):
        drain = drains_of(config)[NAME]
        drain.start()
        await feed(tape, 15, 100 * seed)
        while drain.batches < 2:
            await asyncio.sleep(0.001)
        task = drain._task  # as a process that is killed: nothing is finished, nothing saved
        assert task is not None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    drain = drains_of(config)[NAME]
    drain.start()
    await drained(drain, tape)
    await drain.stop()
    check_exactly_once(await stretches(config.nats), tape)


async def test_a_stream_that_was_deleted_is_filled_again(
    tape: Tape, tmp_path: Path, nats_server: NatsServer
) -> None:
    config = config_of(tmp_path, nats_server.url, node_name())
    drain = drains_of(config)[NAME]
    tape.append(rows_of(3_000))
    drain.start()
    await drained(drain, tape)
    async with connected(config.nats) as bus:
        await bus.jetstream(5.0).delete_stream(f"tradeback_{config.nats.node}")
    tape.append(rows_of(100))
    async with asyncio.timeout(WAIT_S):
        while drain.opens < 2:
            await asyncio.sleep(0.01)
    await drained(drain, tape)
    await drain.stop()
    check_exactly_once(await stretches(config.nats), tape)


async def test_another_engine_of_the_same_name_is_refused(
    tape: Tape, tmp_path: Path, nats_server: NatsServer
) -> None:
    config = config_of(tmp_path, nats_server.url, node_name())
    first = drains_of(config)[NAME]
    tape.append(rows_of(500))
    first.start()
    await drained(first, tape)
    with open_tape(tmp_path / "other") as another:
        another.append(rows_of(10))
        second = drains_of(config_of(tmp_path / "other", nats_server.url, config.nats.node))[NAME]
        second.start()
        words = await until_down(second)
        assert "another engine publishes its tape as node" in words
        assert "NATS_NODE" in words
        await second.stop()
    tape.append(rows_of(10))
    await drained(first, tape)
    await first.stop()
    check_exactly_once(await stretches(config.nats), tape)


async def test_without_a_stream_who_listens_gets_what_is_new(
    tape: Tape, tmp_path: Path, nats_server: NatsServer
) -> None:
    config = config_of(tmp_path, nats_server.url, node_name(), jetstream=False)
    tape.append(rows_of(300))
    async with connected(config.nats) as bus:
        box, codec = Box(), ExactCodec()
        codec.attach()
        await bus.subscribe(f"tradeback.ticks.{config.nats.node}", box.put)
        drain = drains_of(config)[NAME]
        drain.start()
        async with asyncio.timeout(WAIT_S):
            while drain.health().state != "ok":
                await asyncio.sleep(0.01)
        tape.append(rows_of(200))
        await drained(drain, tape)
        await drain.stop()
        tape.append(rows_of(150))
        drain = drains_of(config)[NAME]
        drain.start()
        await drained(drain, tape)
        await drain.stop()
        held = [codec.decode(message.payload) for message in box.held]
        assert (held[0].first, held[-1].end) == (301, 651)
        assert all(one.end == two.first for one, two in pairwise(held))


async def test_any_consumer_reads_the_stream(tape: Tape, tmp_path: Path, nats_server: NatsServer) -> None:
    """As docs/stores.md shows it: nats-py's ordered consumer, and a decoder that knows nothing of nodes."""
    config = config_of(tmp_path, nats_server.url, node_name())
    tape.append(rows_of(2_000))
    drain = drains_of(config)[NAME]
    drain.start()
    await drained(drain, tape)
    decoder = Decoder()
    for symbol in SYMBOLS:
        decoder.learn(symbol.id, symbol.price_precision, symbol.quantity_precision)
    found: list[int] = []
    async with connected(config.nats) as bus:
        subject = f"tradeback.ticks.{config.nats.node}"
        messages = await bus.jetstream(5.0).subscribe(subject, ordered_consumer=True)
        sequence = 0
        while sequence < tape.next_sequence:
            message = await messages.next_msg(timeout=WAIT_S)
            frame = decoder.decode(message.data)
            assert frame.sequence > sequence
            sequence = frame.sequence
            assert message.headers is not None
            assert message.headers["Nats-Msg-Id"] == f"{tape.epoch:08x}-{sequence - 1}"
            found += frame.trades["id"].tolist()
        await messages.unsubscribe()
    await drain.stop()
    rows = tape.read(1, 10_000)
    assert found == rows["id"][rows["kind"] == TRADE].tolist()


async def test_gaps_are_told(tape: Tape, tmp_path: Path, nats_server: NatsServer) -> None:
    config = config_of(tmp_path, nats_server.url, node_name())
    async with connected(config.nats) as bus:
        box = Box()
        await bus.subscribe("tradeback.gaps", box.put)
        drain = drains_of(config)[NAME]
        drain.start()
        tape.append(gap_row())
        value = orjson.loads((await box.wait(1))[0].payload)
        await drain.stop()
    assert value == {
        "symbol": SYMBOLS[0].symbol, "stream": "trade", "state": "open", "from_id": 10, "to_id": 14,
        "missing": 5, "noted_at": 1_700_000_000_000, "time": 1_699_999_999_000,
    }  # fmt: skip


def gap_row() -> Rows:
    row = empty_rows(1)
    row["kind"], row["symbol_id"], row["id"], row["ask"] = GAP, SYMBOLS[0].id, 10, 14
    row["quantity"], row["price"], row["ask_quantity"] = 1, 5, 1
    row["exchange_us"], row["recv_ns"] = 1_699_999_999_000_000, 1_700_000_000_000_000_000
    return row


async def test_a_symbol_that_comes_later(tape: Tape, tmp_path: Path, nats_server: NatsServer) -> None:
    config = config_of(tmp_path, nats_server.url, node_name())
    known = SYMBOLS[:1]
    drain = drains_of(config, known)[NAME]
    tape.append(rows_of(200))
    drain.start()
    assert "does not know symbols" in await until_down(drain)
    known += SYMBOLS[1:]
    await drained(drain, tape)
    await drain.stop()
    check_exactly_once(await stretches(config.nats), tape)


async def test_what_the_server_lacks_is_told_with_the_remedy(tape: Tape, tmp_path: Path) -> None:
    need(NatsServer)

    class Plain(NatsServer):
        """Without JetStream."""

        def command(self) -> list[str]:
            return ["nats-server", "-a", "127.0.0.1", "-p", str(self.port)]

    with Plain(tmp_path / "server") as server:
        drain = drains_of(config_of(tmp_path, server.url, "hub"))[NAME]
        drain.start()
        words = await until_down(drain)
        assert "JetStream is not enabled" in words
        assert "-js" in words
        assert "NATS_JETSTREAM=false" in words
        assert drain.health().last_error == words
        await drain.stop()


async def test_no_room_for_the_stream(tape: Tape, tmp_path: Path) -> None:
    need(NatsServer)
    small = tmp_path / "small.conf"
    small.write_text("jetstream { max_file_store: 1MB }")
    with NatsServer(tmp_path / "server", "-c", str(small)) as server:
        drain = drains_of(config_of(tmp_path, server.url, "hub"))[NAME]
        drain.start()
        words = await until_down(drain)
        assert "no room for the stream tradeback_hub" in words
        assert "NATS_STREAM_BYTES" in words
        await drain.stop()


async def test_nobody_there(tape: Tape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats, "CONNECT_S", 0.3)
    drain = drains_of(config_of(tmp_path, f"nats://127.0.0.1:{free_port()}", "hub"))[NAME]
    drain.start()
    assert "cannot be reached" in await until_down(drain)
    await drain.stop()
