"""web/js/feed.js in node against the real server: exactly once, whatever breaks."""

import asyncio
import functools
import json
import os
import random
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import tradeback
from tests.client.cutter import cutter
from tests.feed.harness import World
from tests.feed.test_watches import Doorman, until_asked
from tests.feed.v2_peer import ALL, Entry, Market, expected, tape_rows, taped
from tests.tape.helpers import kill
from tradeback.feed import watches
from tradeback.model.config import FeedConfig
from tradeback.model.symbols import Symbol

MODULE = Path(tradeback.__file__).parent / "web" / "js" / "feed.js"
SCRIPT = Path(__file__).parent / "feed_v2.mjs"
STATES = {1: "open", 2: "repaired", 3: "unrepairable"}
SAID_BYTES_MAX = 64 << 20
"""So much may wait to be read: node stands still while it cannot write."""
QUICK = {"backoffFirstMs": 1, "backoffMaxMs": 20}


@functools.cache
def node() -> tuple[str, ...]:
    """How to start a node that has a WebSocket; skips, in CI fails, without one."""
    for flags in ((), ("--experimental-websocket",)):
        command = (shutil.which("node") or "node", *flags)
        asked = [*command, "-e", "process.exit(globalThis.WebSocket ? 0 : 1)"]
        with suppress(FileNotFoundError):
            if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
                return command
    reason = "no node with a WebSocket: `make tools` installs one"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Page:
    """The module in a node process. `entries` and `events` are what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.entries: list[Entry] = []
        self.events: list[dict[str, Any]] = []

    async def read(self) -> None:
        """One line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            line = await self.process.stdout.readline()
        assert line, "node ended"
        said = json.loads(line)
        if isinstance(said, dict):
            self.events.append(said)
        else:
            self.entries.append(tuple(said))

    async def told(self, event: str) -> dict[str, Any]:
        """Read up to the next event of this name."""
        seen = len(self.events)
        while True:
            await self.read()
            for found in self.events[seen:]:
                if found["event"] == event:
                    return found

    def send(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")

    async def all_of(self, wanted: list[Entry]) -> None:
        """Read until as many entries have come, which must be these."""
        while len(self.entries) < len(wanted):
            await self.read()
        assert self.entries == wanted

    async def placed(self) -> None:
        """Until the page has its position: a connection that is cut before that cannot be resumed."""
        self.send(placed=True)
        await self.told("placed")

    async def end(self, sequence: int) -> dict[str, Any]:
        """Read until the feed's position has come to `sequence`."""
        self.send(end=sequence)
        return await self.told("end")


@asynccontextmanager
async def page(url: str, *symbols: str, channels: Any = ALL, **options: Any) -> AsyncIterator[Page]:
    """A page that has subscribed and connects."""
    options = {**QUICK, "subscribe": [list(symbols) or ["*"], list(channels)], **options}
    process = await asyncio.create_subprocess_exec(
        *node(), str(SCRIPT), str(MODULE), url, json.dumps(options),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        limit=SAID_BYTES_MAX,
    )  # fmt: skip
    try:
        yield Page(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def as_told(entries: list[Entry]) -> list[Entry]:
    """States of gaps are words in JavaScript."""
    return [(*entry[:4], STATES[entry[4]], *entry[5:]) if entry[0] == "gap" else entry for entry in entries]


async def subscribed(running: World) -> None:
    async with asyncio.timeout(20):
        while not running.feed.v2.fanout.groups:
            await asyncio.sleep(0.001)


async def test_callbacks_get_what_the_tape_has(tmp_path: Path) -> None:
    market = Market(1)
    async with taped(tmp_path) as running:
        running.publish(market.rows(100))
        async with page(running.http, "btcusdt", latency=True) as client:
            await subscribed(running)
            for count in (1, 300, 5):
                running.publish(market.rows(count))
            told = await client.end(407)
            assert client.entries == as_told(expected(tape_rows(running, 101), ids=[1]))
            assert told["position"] == {"epoch": running.tape.epoch, "sequence": 407}
            assert told["url"] == running.ws
            names = [event["event"] for event in client.events if event["event"] != "latency"]
            assert names == ["connecting", "open", "snapshot", "end"]
            latencies = [event for event in client.events if event["event"] == "latency"]
            assert latencies[0]["insideEngineUs"] is None, "of the snapshot"
            assert all((event["exchangeToEngineUs"] or 300) >= 300 for event in latencies)
            assert all(event["insideEngineUs"] >= 0 for event in latencies[1:])


async def publish_some(running: World, market: Market, chance: random.Random) -> None:
    """A few records; slower where the page comes back slowly: no mountain to take in at the end."""
    ample = running.tape.next_sequence > 12_000
    running.publish(market.rows(10 if ample else chance.choice((1, 10, 150))))
    await asyncio.sleep(0.01 if ample else 0.001)


@pytest.mark.parametrize("iterate", [False, True])
async def test_cut_at_random_moments_every_record_comes_once(tmp_path: Path, iterate: bool) -> None:
    market, chance = Market(2), random.Random(2)
    async with (
        taped(tmp_path, hot_rows=1 << 12, rows_per_segment=3_000) as running,
        cutter(3, running.front.port) as relay,
        page(relay.url, iterate=iterate) as client,
    ):
        await subscribed(running)
        await client.placed()
        relay.cut()
        relay.bytes_most = 20_000
        while relay.cuts < 10 or running.tape.next_sequence < 6_000:
            await publish_some(running, market, chance)
        relay.bytes_most = 0
        running.publish(market.rows(1))
        await client.all_of(as_told(expected(tape_rows(running))))
        assert (await client.end(running.tape.next_sequence))["reconnects"] >= 8
        assert running.feed.counts.resumes_refused == 0


async def test_damaged_frames_cost_connections_and_no_record(tmp_path: Path) -> None:
    market, chance = Market(12), random.Random(12)
    async with taped(tmp_path) as running, cutter(12, running.front.port) as relay:
        relay.damage_every = 15
        async with page(relay.url) as client:
            await subscribed(running)
            await client.placed()
            while relay.damages < 8 or running.tape.next_sequence < 1_500:
                await publish_some(running, market, chance)
            relay.damage_every = 0
            running.publish(market.rows(1))
            await client.all_of(as_told(expected(tape_rows(running))))
            told = await client.end(running.tape.next_sequence)
        damaged = [event for event in client.events if event.get("code") == "damaged"]
        assert 8 <= len(damaged) == told["reconnects"] == relay.damages
        reasons = [event["reason"] for event in client.events if event["event"] == "waiting"]
        assert all(reason.startswith("what came cannot be read: ") for reason in reasons)
        assert running.feed.counts.resumes_refused == 0


@pytest.mark.parametrize("symbols", [["ETHUSDT"], None], ids=["beside its own", "alone"])
async def test_a_market_watch_comes_once_whatever_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, symbols: list[str] | None
) -> None:
    monkeypatch.setattr(watches, "PARK_S", 0.01)
    market, chance = Market(6), random.Random(6)
    subscribe = [symbols, ["trades"]] if symbols else None
    async with taped(tmp_path, hot_rows=1 << 12, rows_per_segment=3_000) as running:
        doorman = Doorman(running, "BTCUSDT")
        async with (
            cutter(6, running.front.port) as relay,
            page(relay.url, subscribe=subscribe) as client,
        ):
            await until_asked(doorman, bool(symbols))
            await client.placed()
            relay.cut()
            relay.bytes_most = 4_000
            while relay.cuts < 5 or running.tape.next_sequence < 1_500:
                await publish_some(running, market, chance)
            relay.bytes_most = 0
            running.publish(market.rows(1))
            ids = {1, 2} if symbols else {1}
            await client.all_of(as_told(expected(tape_rows(running), ["trades"], ids)))
            assert running.feed.counts.resumes_refused == 0
            doorman.names = ("SOLUSDT",)
            # A replay may not have ended though all of it has come; the engine asks again, too.
            async with asyncio.timeout(10):
                while not all(doorman.tell(each) for each in doorman.clients if not each.closing):
                    await asyncio.sleep(0.001)
            assert (await client.told("unsubscribed"))["symbols"] == ["BTCUSDT"]
            assert (await client.told("watched"))["symbol"] == "SOLUSDT"


async def test_an_engine_that_is_killed_and_comes_again_or_is_another(tmp_path: Path) -> None:
    market = Market(4)
    async with cutter(1, 0) as relay, page(relay.url) as client:
        async with taped(tmp_path / "one", rows_per_segment=3_000) as running:
            relay.target = running.front.port
            await subscribed(running)
            await client.placed()
            running.publish(market.rows(2_000))
            relay.target = None
            relay.cut()
            running.publish(market.rows(2_000))
            kill(running.tape)
        async with taped(tmp_path / "one", rows_per_segment=3_000) as running:
            relay.target = running.front.port
            await subscribed(running)
            running.publish(market.rows(10))
            wanted = as_told(expected(tape_rows(running)))
            await client.all_of(wanted)
            epoch = running.tape.epoch
            relay.target = None
            relay.cut()
        async with taped(tmp_path / "two") as other:
            other.publish(market.rows(20))
            relay.target = other.front.port
            lost = await client.told("lost")
            assert lost["held"] == {"epoch": epoch, "sequence": 4_011}
            assert lost["now"] == {"epoch": other.tape.epoch, "sequence": 21}
            assert "is not of this tape" in lost["reason"]
            assert (await client.told("snapshot"))["position"] == lost["now"]
            other.publish(market.rows(20))
            wanted += as_told(expected(tape_rows(other, 21)))
            await client.all_of(wanted)


async def test_a_page_that_was_closed_goes_on_where_it_was(tmp_path: Path) -> None:
    market = Market(5)
    async with taped(tmp_path) as running:
        running.publish(market.rows(9_000))
        resume = {"epoch": running.tape.epoch, "sequence": 100}
        async with page(running.http, iterate=True, leave=1, resume=resume) as client:
            await client.all_of(as_told(expected(tape_rows(running, 100))))
            assert [event["event"] for event in client.events].count("open") == 2, "left once, nothing lost"


async def test_a_position_that_is_none() -> None:
    async with page("http://127.0.0.1:1", resume={"epoch": 5, "sequence": 0}) as client:
        with pytest.raises(AssertionError, match="node ended"):
            await client.read()


async def test_a_slow_loop_gives_the_connection_up_and_loses_nothing(tmp_path: Path) -> None:
    market = Market(6)
    async with taped(tmp_path) as running, page(
        running.http, iterate=True, waitingMax=20, slowMs=1
    ) as client:  # fmt: skip
        await subscribed(running)
        for _ in range(150):
            running.publish(market.rows(10))
            await asyncio.sleep(0)
        wanted = as_told(expected(tape_rows(running)))
        await client.all_of(wanted)
        assert any("wait for the program" in event.get("reason", "") for event in client.events)


async def test_channels_with_symbols_of_their_own_survive_breaks(tmp_path: Path) -> None:
    market = Market(7)
    async with (
        taped(tmp_path) as running,
        cutter(1, running.front.port) as relay,
        page(relay.url, "BTCUSDT", channels=["trades"]) as client,
    ):
        await subscribed(running)
        client.send(subscribe=[["SOLUSDT"], ["quotes"]])
        await wants(running, 2)
        await client.placed()
        wanted: list[Entry] = []
        for _ in range(3):
            running.publish(market.rows(200))
            relay.cut()
            running.publish(market.rows(200))
            wanted = [
                entry
                for entry in expected(tape_rows(running), ["trades", "quotes"])
                if (entry[0], entry[1]) in (("trade", 1), ("quote", 3))
            ]
            await client.all_of(wanted)
        await wants(running, 2)
        client.send(unsubscribe=[["*"]])
        await wants(running, 0)


async def wants(running: World, subjects: int) -> None:
    """Until the one client of the server is subscribed to so many."""
    async with asyncio.timeout(10):
        while [len(client.interest) for client in running.feed.clients if not client.closing] != [subjects]:
            await asyncio.sleep(0.001)


async def test_a_symbol_that_is_listed_later_and_a_callback_that_throws(tmp_path: Path) -> None:
    market = Market(8, symbols=(1, 9))
    async with taped(tmp_path) as running, page(running.http, throws=True) as client:
        await subscribed(running)
        running.symbols.put(Symbol(9, "NEWUSDT", tick_size="0.01000000", step_size="0.00100000"))
        for _ in range(10):
            running.publish(market.rows(30))
            await asyncio.sleep(0)
        await client.all_of(as_told(expected(tape_rows(running))))
        thrown = {"event": "thrown", "message": "a program's own mistake"}
        while thrown not in client.events:
            await client.read()


async def test_an_engine_that_falls_silent_is_left(tmp_path: Path) -> None:
    config = FeedConfig(lag_max_s=0.04)
    async with taped(tmp_path, config) as running, page(running.http, silenceMaxMs=300) as client:
        await subscribed(running)
        (stuck,) = running.feed.clients
        running.feed.v2.fanout.leave(stuck)
        stuck.ws = None  # no answer to anything
        reason = (await client.told("waiting"))["reason"]
        assert reason.startswith("nothing came for")
        await client.told("open")
        running.publish(Market(1).rows(20))
        await client.end(21)
        assert client.entries == as_told(expected(tape_rows(running)))
