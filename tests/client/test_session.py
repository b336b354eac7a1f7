"""client.session and client.feed against the real server, version 2: exactly once, whatever breaks."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.client.cutter import Cutter, cutter
from tests.feed.harness import World
from tests.feed.v2_peer import ALL, Entry, Market, entries_of, expected, tape_rows, taped
from tests.tape.helpers import kill
from tradeback.client import Batch, Control, Feed, FeedError, Gap, Lost, Position, connect
from tradeback.client import feed as feeds
from tradeback.model.config import FeedConfig
from tradeback.model.symbols import Symbol
from tradeback.wire import v2_layout as at


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr(feeds, "BACKOFF_MAX_S", 0.02)


def entries_in(batch: Batch) -> list[Entry]:
    """A batch's entries after the client's own choice."""
    chosen: Any = batch.frame.__class__
    names = chosen.__dataclass_fields__
    values = {name: getattr(batch.frame, name) for name in names}
    values.update({name: getattr(batch, name) for name in ("trades", "quotes", "gaps", "enigma")})
    return entries_of(chosen(**values))


async def read(feed: Feed, running: World, end: int) -> list[Entry]:
    """Everything but snapshots, until the position `end` has been reached."""
    found: list[Entry] = []
    async with asyncio.timeout(20):
        async for batch in feed:
            if not batch.snapshot:
                found += entries_in(batch)
            if feed.position is not None and feed.position.sequence >= end:
                return found
    raise AssertionError("the iteration ended")


async def collected(feed: Feed, found: list[Entry]) -> None:
    """Collect for ever."""
    async for batch in feed:
        if not batch.snapshot:
            found += entries_in(batch)


@asynccontextmanager
async def collecting(feed: Feed) -> AsyncIterator[list[Entry]]:
    found: list[Entry] = []
    task = asyncio.create_task(collected(feed, found))
    try:
        yield found
    finally:
        task.cancel()
        (end,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(end, asyncio.CancelledError), end


async def subscribed(running: World) -> None:
    """Until the server knows what a client wants."""
    async with asyncio.timeout(5):
        while not running.feed.v2.fanout.groups:
            await asyncio.sleep(0.001)


async def settled(feed: Feed, end: int) -> None:
    async with asyncio.timeout(20):
        while feed.position is None or feed.position.sequence < end:
            await asyncio.sleep(0.001)


async def test_batches_have_what_the_tape_has(tmp_path: Path) -> None:
    market = Market(1)
    async with taped(tmp_path) as running:
        running.publish(market.rows(300))
        async with connect(running.http, ["BTCUSDT"], channels=ALL) as feed:
            first = await anext(aiter(feed))
            assert first.snapshot
            assert feed.version == 2
            assert feed.position == (running.tape.epoch, 301)
            assert first.entries["volume"].tolist() == [0.0]
            assert feed.symbol(1).price_precision == 2
            assert first.latency.inside_engine_us is None
            rows = market.rows(100)
            rows["recv_ns"] = time.time_ns()
            rows["exchange_us"][rows["exchange_us"] > 0] = rows["recv_ns"][0] // 1_000 - 4_000
            running.publish(rows)
            batch = await anext(aiter(feed))
            assert entries_of(batch.frame) == expected(rows, ids=[1])
            assert feed.position == batch.position == (running.tape.epoch, 401)
            trades = [entry for entry in expected(rows, ids=[1]) if entry[0] == "trade"]
            assert batch.prices(1).tolist() == batch.prices().tolist() == [entry[4] for entry in trades]
            assert [float(price) for price in batch.exact_prices()] == [entry[4] for entry in trades]
            assert all(-price.as_tuple().exponent == 2 for price in batch.exact_prices())  # type: ignore[operator]
            assert [float(value) for value in batch.exact_quantities(1)] == batch.quantities().tolist()
            assert batch.prices(2).tolist() == []
            assert batch.latency.exchange_to_engine_us == 4_000
            assert batch.latency.inside_engine_us == batch.publish_delay_us >= 0
            later = batch.latency.engine_to_client_us
            assert later is not None
            assert 0 <= later + 1 < 5_000_000
            assert batch.engine_recv_us == int(rows["recv_ns"][0]) // 1_000
            assert "trades" in repr(batch)


@pytest.mark.parametrize("seed", range(4))
async def test_cut_at_random_moments_every_record_comes_once(tmp_path: Path, seed: int) -> None:
    market, chance = Market(seed), random.Random(seed)
    async with taped(tmp_path, hot_rows=1 << 12, rows_per_segment=3_000) as running:
        running.publish(market.rows(100))
        async with cutter(seed, running.front.port, 20_000) as relay:
            # The first connection must stand, or `connect` says so.
            relay.bytes_most = 0
            async with connect(relay.url, channels=ALL) as feed, collecting(feed) as found:
                await settled(feed, 101)
                relay.cut()
                relay.bytes_most = 20_000
                while relay.cuts < 10 or running.tape.next_sequence < 6_000:
                    running.publish(market.rows(chance.choice((1, 10, 150))))
                    await asyncio.sleep(0.001)
                relay.bytes_most = 0
                running.publish(market.rows(1))
                await settled(feed, running.tape.next_sequence)
                assert found == expected(tape_rows(running, 101))
                assert feed.reconnects >= 8
                assert running.feed.counts.resumes_refused == 0


async def test_damaged_frames_cost_connections_and_no_record(tmp_path: Path) -> None:
    market, chance = Market(11), random.Random(11)
    async with taped(tmp_path) as running, cutter(11, running.front.port) as relay:
        running.publish(market.rows(100))
        relay.damage_every = 15
        async with connect(relay.url, channels=ALL) as feed, collecting(feed) as found:
            await settled(feed, 101)
            while relay.damages < 12 or running.tape.next_sequence < 3_000:
                running.publish(market.rows(chance.choice((1, 10, 50))))
                await asyncio.sleep(0.001)
            relay.damage_every = 0
            running.publish(market.rows(1))
            await settled(feed, running.tape.next_sequence)
            assert found == expected(tape_rows(running, 101))
            assert 12 <= feed.damaged == relay.damages
            assert feed.reconnects == feed.damaged
            assert running.feed.counts.resumes_refused == 0


async def test_an_engine_that_is_killed_and_comes_again(tmp_path: Path) -> None:
    market = Market(11)
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(cutter(1, 0))
        feed = found = None
        for _ in range(4):
            async with taped(tmp_path, attach=False, rows_per_segment=3_000) as running:
                relay.target = running.front.port
                if feed is None or found is None:
                    running.feed.attach_kernels()
                    feed = await stack.enter_async_context(connect(relay.url, channels=ALL))
                    found = await stack.enter_async_context(collecting(feed))
                    await settled(feed, 1)
                else:
                    async with asyncio.timeout(5):
                        while not running.feed.clients:
                            await asyncio.sleep(0.001)
                    running.feed.attach_kernels()
                running.publish(market.rows(3_000))
                await settled(feed, running.tape.next_sequence)
                assert found == expected(tape_rows(running))
                running.publish(market.rows(2_000))
                relay.target = None
                relay.cut()
                running.publish(market.rows(200))  # on the tape, and seen by nobody
                kill(running.tape)
        assert running.feed.counts.resumed == 1
        assert feed is not None
        assert feed.reconnects == 3


async def test_a_program_that_restarts_goes_on_where_it_was(tmp_path: Path) -> None:
    market = Market(12)
    async with taped(tmp_path) as running:
        running.publish(market.rows(10))
        async with connect(running.http, channels=ALL) as feed:
            await subscribed(running)
            running.publish(market.rows(500))
            before = await read(feed, running, 400)
            stored = feed.position
        assert stored is not None
        running.publish(market.rows(2_000))
        async with connect(running.http, channels=ALL, resume=tuple(stored)) as feed:  # type: ignore[arg-type]
            events = feed.events()
            assert [(await anext(events)).type for _ in range(2)] == ["subscribed", "resumed"]  # type: ignore[union-attr]
            batch = await anext(events)
            assert isinstance(batch, Batch)
            assert batch.replay
            assert batch.latency.inside_engine_us is None
            after = entries_in(batch)
            if feed.position != (running.tape.epoch, running.tape.next_sequence):
                after += await read(feed, running, running.tape.next_sequence)
        assert before + after == expected(tape_rows(running, 11))


async def test_a_refused_resume_is_told_and_it_goes_on_from_the_snapshot(tmp_path: Path) -> None:
    market = Market(13)
    lost: list[Lost] = []
    async with taped(tmp_path / "one") as running, cutter(1, running.front.port) as relay:
        running.publish(market.rows(50))
        async with connect(relay.url, channels=ALL, on_lost=lost.append) as feed:
            await subscribed(running)
            running.publish(market.rows(50))
            await read(feed, running, 101)
            held = feed.position
            relay.target = None
            relay.cut()
            async with taped(tmp_path / "two") as other:
                other.publish(market.rows(30))
                relay.target = other.front.port
                seen: list[str] = []
                async with asyncio.timeout(10):
                    async for event in feed.events():
                        seen.append(event.type if isinstance(event, Control) else type(event).__name__)
                        if isinstance(event, Batch) and event.snapshot:
                            break
                assert seen == ["disconnected", "subscribed", "resume_refused", "Lost", "Batch"]
                (told,) = lost
                assert held is not None
                assert told.held == held
                assert told.now == feed.position == Position(other.tape.epoch, 31)
                assert "is not of this tape" in told.reason
                other.publish(market.rows(40))
                assert await read(feed, other, 71) == expected(tape_rows(other, 31))


async def test_gaps_call_back(tmp_path: Path) -> None:
    market = Market(14)
    gaps: list[Gap] = []
    async with taped(tmp_path) as running:
        async with connect(running.http, ["ETHUSDT"], channels=["gaps"], on_gap=gaps.append) as feed:
            await subscribed(running)
            running.publish(market.rows(400))
            await read(feed, running, 401)
        wanted = expected(tape_rows(running), ["gaps"], [2])
        states = {1: "open", 2: "repaired", 3: "unrepairable"}
        assert [
            (gap.symbol_id, gap.first_id, gap.last_id, gap.state, gap.missing, gap.exchange_us)
            for gap in gaps
        ] == [(*entry[1:4], states[entry[4]], *entry[5:]) for entry in wanted]
        assert {gap.symbol for gap in gaps} == {"ETHUSDT"}


async def test_channels_with_symbols_of_their_own_survive_breaks(tmp_path: Path) -> None:
    """More is asked for than wanted, as a resume belongs to one request; the program sees what it wants."""
    market = Market(15)

    def wanted(rows: Any) -> list[Entry]:
        return [
            entry
            for entry in expected(rows, ["trades", "quotes"])
            if (entry[0] == "trade" and entry[1] != 3) or (entry[0] == "quote" and entry[1] == 3)
        ]

    async with (
        taped(tmp_path) as running,
        cutter(1, running.front.port) as relay,
        connect(relay.url, ["BTCUSDT", "ethusdt"]) as feed,
        collecting(feed) as found,
    ):
        feed.subscribe(["SOLUSDT"], ["quotes"])
        async with asyncio.timeout(5):
            while running.feed.v2.fanout.groups != 1 or len(feed.symbols) < 3:
                await asyncio.sleep(0.001)
        for _ in range(4):
            running.publish(market.rows(300))
            relay.cut()
            running.publish(market.rows(300))
            await settled(feed, running.tape.next_sequence)
            assert found == wanted(tape_rows(running))
        async with asyncio.timeout(5):
            while True:
                (client,) = running.feed.clients
                if client.interest == frozenset({1, 2, at.CHANNEL_QUOTES * at.SYMBOL_IDS + 3}):
                    break
                await asyncio.sleep(0.001)
        feed.unsubscribe(["ETHUSDT"])
        async with asyncio.timeout(5):
            while 2 in client.interest:
                await asyncio.sleep(0.001)


async def test_a_symbol_that_is_listed_later_is_asked_for(tmp_path: Path) -> None:
    market = Market(16, symbols=(1, 9))
    async with (
        taped(tmp_path) as running,
        connect(running.http, channels=ALL) as feed,
        collecting(feed) as found,
    ):
        await settled(feed, 1)
        running.symbols.put(Symbol(9, "NEWUSDT", tick_size="0.01000000", step_size="0.00100000"))
        for _ in range(20):
            running.publish(market.rows(30))
            await asyncio.sleep(0)
        await settled(feed, 601)
        assert found == expected(tape_rows(running))
        assert feed.symbol(9).symbol == "NEWUSDT"


async def test_an_engine_that_falls_silent_is_left(tmp_path: Path) -> None:
    """Heartbeats keep a connection; when they stop it is broken, whatever TCP says."""
    fast = FeedConfig(lag_max_s=0.04)
    async with taped(tmp_path, fast) as running, connect(running.http, silence_max_s=0.3) as feed:
        reading = asyncio.create_task(read(feed, running, 2))
        begin = time.monotonic()
        while time.monotonic() < begin + 0.6:
            await asyncio.sleep(0.01)
        assert feed.reconnects == 0, "heartbeats are signs of life"
        stuck = next(iter(running.feed.clients))
        running.feed.v2.fanout.leave(stuck)  # nothing is sent to it any more, not even heartbeats
        stuck.ws, ws = None, stuck.ws
        stuck.transport.pause_reading()  # and no pong comes
        async with asyncio.timeout(5):
            while not feed.reconnects:
                await asyncio.sleep(0.005)
        assert ws is not None
        running.publish(Market(1, symbols=(1,)).rows(5))
        await asyncio.wait_for(reading, 5)


async def test_a_slow_program_gets_every_trade(tmp_path: Path) -> None:
    """It reads nothing for a while: the engine is held up for it alone, and catches up from the tape."""
    market = Market(17)
    small = FeedConfig(send_buffer_bytes=4_096, lag_max_s=60.0)
    async with (
        taped(tmp_path, small, hot_rows=1 << 17) as running,
        connect(running.http, channels=["trades", "quotes"]) as feed,
    ):
        batches = aiter(feed)
        await subscribed(running)
        running.publish(market.rows(1))
        while not running.feed.lagging:
            running.publish(market.rows(500))
            await asyncio.sleep(0)
        running.publish(market.rows(5_000))
        assert feed.waiting <= 2 * 1_024
        end = running.tape.next_sequence
        found: list[Entry] = []
        async with asyncio.timeout(20):
            async for batch in batches:
                found += [entry for entry in entries_of(batch.frame) if entry[0] == "trade"]
                if batch.frame.sequence >= end:
                    break
        assert found == expected(tape_rows(running), ["trades"])


async def test_version_1_of_the_same_server(tmp_path: Path) -> None:
    async with taped(tmp_path) as running, connect(running.http, ["BTCUSDT"], version=1) as feed:
        events = feed.events()
        assert isinstance(await anext(events), Control)
        running.trade((1, 5.0, 1.0))
        batches = feed.batches()
        assert (await anext(batches)).entries.tolist() == [(1, 5.0, 1.0)]
        assert (feed.version, feed.position) == (1, None)
        running.trade((1, 6.0, 1.0))
        with pytest.raises(FeedError, match="version 1 of the feed only"):
            await anext(aiter(feed))
    with pytest.raises(FeedError, match="no version 3"):
        connect("http://h", version=3)


async def test_cutter_itself_cuts(tmp_path: Path) -> None:
    async with taped(tmp_path) as running, cutter(1, running.front.port, 1) as relay:
        assert isinstance(relay, Cutter)
        with pytest.raises(FeedError, match="no engine answers"):
            async with connect(relay.url):
                pass
        assert relay.cuts == 1
