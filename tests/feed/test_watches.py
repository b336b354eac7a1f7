"""Market watches as subscriptions of version 2: a resume brings everything, whatever the watch did before."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import websockets
from websockets.typing import Subprotocol

from tests.client.cutter import cutter
from tests.feed.harness import World
from tests.feed.v2_peer import ALL, Entry, Market, Peer, entries_of, expected, tape_rows, taped
from tradeback.client import connect
from tradeback.client import feed as feeds
from tradeback.feed import watches
from tradeback.feed.admission import Admission, unpacked
from tradeback.feed.client import Client
from tradeback.feed.head import UpgradeRequest
from tradeback.model.symbols import Symbol

TRADES = ("trades",)


class Doorman:
    """Gate and attendance: every socket has one session, whose watch is `names`."""

    def __init__(self, running: World, *names: str, symbols: frozenset[str] | None = None) -> None:
        self.names, self.running, self.clients = names, running, set[Client]()
        self.admission = Admission("session", "watch", symbols)
        running.front.gate = self
        running.feed.attendance = self

    def admit(self, request: UpgradeRequest, peer: str) -> Admission:
        return self.admission

    def arrived(self, client: Client) -> None:
        self.clients.add(client)
        self.tell(client)

    def left(self, client: Client) -> None:
        self.clients.discard(client)

    def symbols_came(self) -> None:
        """It is told by the tests."""

    def tell(self, client: Client) -> bool:
        return self.running.feed.requests.follow(client, self.names)


class Watcher(Peer):
    """A peer that learns symbols from auto_subscribe, and drops what comes before a resume is answered."""

    asked = False

    def take(self, message: str | bytes) -> None:
        if isinstance(message, bytes) and self.asked:
            return
        super().take(message)
        if not isinstance(message, bytes):
            told = self.texts[-1]
            if told["type"] == "auto_subscribe":
                data = told["data"]
                self.decoder.learn(data["id"], data["price_precision"], data["quantity_precision"])
            elif told["type"] in ("resumed", "resume_refused"):
                self.asked = False


@asynccontextmanager
async def watcher(running: World) -> AsyncIterator[Watcher]:
    options = {"subprotocols": [Subprotocol("tradeback.v2")], "compression": None}
    async with websockets.connect(running.ws, max_queue=None, **options) as ws:  # type: ignore[arg-type]
        yield Watcher(ws)


async def test_the_watch_is_described_and_delivered(tmp_path: Path) -> None:
    async with taped(tmp_path) as running:
        market = Market(symbols=(1, 2, 3))
        running.publish(market.rows(200))
        Doorman(running, "ETHUSDT", "BTCUSDT")
        async with watcher(running) as one:
            first = (await one.answer("auto_subscribe"))["data"]
            assert first == {
                "symbol": "ETHUSDT", "id": 2, "price_precision": 2, "quantity_precision": 4,
                "epoch": running.tape.epoch, "sequence": 201,
            }  # fmt: skip
            await one.answer("auto_subscribe")
            running.publish(market.rows(500))
            await one.reach(running.tape.next_sequence)
            assert one.entries() == expected(tape_rows(running, 201), TRADES, {1, 2})
            snapshot = one.entries(flags=one.frames[0].flags)
            assert {entry[1] for entry in snapshot} == {1, 2}


@pytest.mark.parametrize("first", ["watch", "request"])
async def test_a_resume_and_its_subscription_take_the_watch_along(tmp_path: Path, first: str) -> None:
    async with taped(tmp_path) as running:
        market = Market(symbols=(1, 2, 3))
        running.publish(market.rows(400))
        Doorman(running, "BTCUSDT")
        async with watcher(running) as one:
            if first == "watch":
                await one.answer("auto_subscribe")
                running.publish(market.rows(100))
                await one.reach(running.tape.next_sequence)
            one.frames.clear()
            one.held.clear()
            one.asked = True
            await one.resume(running.tape.epoch, 101)
            await one.send(type="subscribe", symbols=["ETHUSDT"], channels=["quotes"])
            await one.answer("resumed")
            running.publish(market.rows(300))
            await one.reach(running.tape.next_sequence)
            rows = tape_rows(running, 101)
            wanted = np.isin(rows["symbol_id"], (1, 2))
            both = [
                entry
                for row in rows[wanted]
                for entry in expected(row.reshape(1), TRADES if row["symbol_id"] == 1 else ("quotes",))
            ]
            assert one.entries() == both


async def test_a_resume_alone_is_for_the_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "PARK_S", 0.01)
    async with taped(tmp_path) as running:
        market = Market(symbols=(1, 2, 3))
        running.publish(market.rows(400))
        Doorman(running, "BTCUSDT", "SOLUSDT")
        async with watcher(running) as one:
            await one.answer("auto_subscribe")
            await one.answer("auto_subscribe")
            one.asked = True
            await one.resume(running.tape.epoch, 51)
            assert (await one.answer("resumed"))["sequence"] == 51
            running.publish(market.rows(100))
            await one.reach(running.tape.next_sequence)
            assert one.entries() == expected(tape_rows(running, 51), TRADES, {1, 3})


async def test_while_a_resume_waits_the_watch_does_too(tmp_path: Path) -> None:
    async with taped(tmp_path) as running:
        running.publish(Market().rows(50))
        doorman = Doorman(running, "BTCUSDT")
        async with watcher(running) as one:
            await one.answer("auto_subscribe")
            (client,) = doorman.clients
            await one.resume(running.tape.epoch, 1)
            await one.send(type="ping")
            await one.answer("pong")
            doorman.names = ("BTCUSDT", "ETHUSDT")
            assert doorman.tell(client) is False
            assert client.parked == {1}
            await one.send(type="unsubscribe", symbols=["BTCUSDT"])
            await one.answer("unsubscribed")
            assert not client.parked
            assert doorman.tell(client) is True
            assert (await one.answer("auto_subscribe"))["data"]["symbol"] == "ETHUSDT"


async def test_everything_swallows_the_watch(tmp_path: Path) -> None:
    async with taped(tmp_path) as running:
        market = Market()
        doorman = Doorman(running, "BTCUSDT")
        async with watcher(running) as one:
            await one.answer("auto_subscribe")
            await one.subscribe("*", channels=TRADES)
            (client,) = doorman.clients
            doorman.names = ("ETHUSDT",)
            assert doorman.tell(client)
            assert (await one.answer("auto_subscribe"))["data"]["symbol"] == "ETHUSDT"
            doorman.names = ()
            assert doorman.tell(client)
            begin = running.tape.next_sequence
            running.publish(market.rows(300))
            await one.reach(running.tape.next_sequence)
            assert one.entries() == expected(tape_rows(running, begin), TRADES)
            assert one.order.count("unsubscribed") == 0


async def test_unknown_and_forbidden_symbols_are_left_out_until_they_are_not(tmp_path: Path) -> None:
    async with taped(tmp_path) as running:
        doorman = Doorman(running, "SOLUSDT", "NEWUSDT", "BTCUSDT", symbols=frozenset({"BTCUSDT", "NEWUSDT"}))
        async with watcher(running) as one:
            assert (await one.answer("auto_subscribe"))["data"]["symbol"] == "BTCUSDT"
            (client,) = doorman.clients
            running.symbols.put(Symbol(9, "NEWUSDT"))
            assert doorman.tell(client)
            assert (await one.answer("auto_subscribe"))["data"]["id"] == 9
            assert client.watched == ("NEWUSDT", "BTCUSDT")


@pytest.mark.parametrize("early", [True, False])
async def test_a_restricted_session_gets_its_symbols_and_no_others_by_every_way(
    tmp_path: Path, early: bool
) -> None:
    """Snapshot, replay from the tape, live: "*" is what it may see."""
    market = Market(8)
    async with taped(tmp_path) as running, watcher(running) as _everybody:
        Doorman(running, symbols=frozenset({"ETHUSDT"}))
        running.publish(market.rows(500))
        async with watcher(running) as client:
            if early:
                await client.resume(running.tape.epoch, 1)
            await client.send(type="subscribe", symbols=["*", "BTCUSDT"], channels=list(ALL))
            if not early:
                await client.resume(running.tape.epoch, 1)
            await client.answer("resumed")
            running.publish(market.rows(200))
            await client.reach(701)
            assert client.entries() == expected(tape_rows(running), ids=(2,))
            assert {entry[1] for entry in client.entries(snapshots=True)} == {2}
            assert "forbidden_symbol" in [told.get("code") for told in client.texts]


def test_an_admission_travels_as_json() -> None:
    import orjson

    full = Admission("s", "w", frozenset({"B", "A"}), ("A",), "192.0.2.1")
    for admission in (Admission(), Admission("s", "w"), full):
        assert unpacked(orjson.loads(orjson.dumps(admission.packed()))) == admission


async def until_asked(doorman: Doorman, asked: bool) -> None:
    """Until a client is connected that has got its watch, and has subscribed itself if it will."""
    async with asyncio.timeout(30):
        while not any(client.watched and client.asked >= asked for client in doorman.clients):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("names", [["ETHUSDT"], []], ids=["beside its own", "alone"])
async def test_our_client_gets_a_watch_exactly_once_whatever_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    monkeypatch.setattr(feeds, "BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr(feeds, "BACKOFF_MAX_S", 0.02)
    monkeypatch.setattr(watches, "PARK_S", 0.01)
    market, chance = Market(5), random.Random(5)
    async with (
        taped(tmp_path, hot_rows=1 << 12, rows_per_segment=3_000) as running,
        cutter(5, running.front.port, 0) as relay,
        connect(relay.url, names) as feed,
    ):
        doorman = Doorman(running, "BTCUSDT")
        relay.cut()  # the first connection was made before there was a watch
        found: list[Entry] = []

        async def collect() -> None:
            async for batch in feed:
                if not batch.snapshot:
                    found.extend(entries_of(batch.frame))

        collecting = asyncio.create_task(collect())
        await until_asked(doorman, bool(names))
        async with asyncio.timeout(30):
            while feed.position is None:
                await asyncio.sleep(0.001)
        begin = running.tape.next_sequence
        relay.bytes_most = 10_000
        relay.cut()
        while relay.cuts < 8 or running.tape.next_sequence < 5_000:
            running.publish(market.rows(chance.choice((1, 10, 150))))
            await asyncio.sleep(0.001)
        relay.bytes_most = 0
        running.publish(market.rows(10))
        async with asyncio.timeout(60):
            while feed.position is None or feed.position.sequence < running.tape.next_sequence:
                await asyncio.sleep(0.001)
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)
        ids = {1, 2} if names else {1}
        assert found == expected(tape_rows(running, begin), TRADES, ids)
        assert running.feed.counts.resumes_refused == 0
