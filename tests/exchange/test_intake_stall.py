"""The disk refuses for a while: nothing is lost, doubled, reordered or shown early, and the lines go on."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.exchange.harness import (
    Desk,
    Peer,
    Script,
    desk,
    frame,
    quote,
    running,
    samples,
    scripted,
    trade,
    until,
)
from tradeback.exchange import intake, requests
from tradeback.ingest import context as words
from tradeback.model.errors import TapeError
from tradeback.model.record import TRADE, Rows, empty_rows


class Disk:
    """Stands between a tape and its file: refuses while `full`, or the calls that `refuses` names."""

    def __init__(self, world: Desk) -> None:
        self._tape = world.tape
        self._commit = world.tape.commit_slowly
        self.full = False
        self.calls = 0
        self.refusals = 0
        self.refuses: Callable[[int], bool] = lambda call: False
        world.tape.commit = world.tape.commit_slowly = self.commit  # type: ignore[method-assign]
        world.tape.limit = 0  # so that the kernel leaves every write to this

    def commit(self, count: int) -> int:
        self.calls += 1
        if self.full or self.refuses(self.calls):
            self.refusals += 1
            raise TapeError("the disk is full: free some space")
        try:
            return self._commit(count)
        finally:
            self._tape.limit = 0


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(intake, "RETRY_S", 0.01)
    with desk(tmp_path, hot_rows=4096) as made:
        yield made


def ids(world: Desk) -> list[int]:
    return [int(number) for number in world.rows["id"]]


async def test_a_refusal_pauses_and_nothing_is_lost(world: Desk) -> None:
    disk = Disk(world)

    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await until(lambda: disk.full)
        for number in range(1, 20_001):
            peer.writer.write(trade(number))
        await peer.writer.drain()
        await peer.hold()

    async with scripted(script) as exchange, running(world.line(exchange.endpoint)) as line:
        await until(line.was_up.is_set)
        disk.full = True
        await until(lambda: disk.refusals >= 3)
        assert world.count == 0
        assert world.tape.next_sequence == 1
        assert "free some space" in (world.intake.stalled or "")
        taken = line.bytes_read
        await until(lambda: disk.refusals >= 6)
        assert line.bytes_read == taken, "the socket is left alone meanwhile"
        disk.full = False
        await until(lambda: world.count == 20_000)
        assert world.intake.stalled is None
        assert line.counts.reconnects == 0
    assert ids(world) == list(range(1, 20_001))
    assert len(world.tape.read(world.tape.oldest_sequence, 20_000)) == 20_000
    world.check_tape()


@pytest.mark.parametrize("all_to_side", [0, 1])
async def test_refusals_at_any_moment(world: Desk, all_to_side: int) -> None:
    """Every third append is refused once; kernel frames, slow frames, pings and fragments in between."""
    disk = Disk(world)
    disk.refuses = lambda call: call % 3 == 1
    world.intake.view[words.ALL_TO_SIDE] = all_to_side

    def piece(number: int) -> bytes:
        if number % 4 == 1:
            return trade(number, extra=',"x":"é \\u0041"')  # for the slow path
        if number % 4 == 2:
            whole = trade(number)[4:]
            return frame(whole[:30], 0x01) + frame(b"p", 0x89) + frame(whole[30:], 0x80)
        return trade(number) + trade(number)

    async def script(peer: Peer) -> None:
        await peer.subscribed()
        for start in range(1, 401, 16):
            await peer.send(*(piece(number) for number in range(start, start + 16)))
            await asyncio.sleep(0)
        await peer.hold()

    async with scripted(script) as exchange, running(world.line(exchange.endpoint)) as line:
        await until(lambda: world.count == 400, 20)
        await until(lambda: len(exchange.peers[0].opcodes) >= 1)
        assert line.counts.reconnects == 0
        assert disk.refusals > 20
    assert ids(world) == list(range(1, 401))
    assert line.counts.pings == 100
    # The exchange limits messages, so of pings that come faster the newest is answered.
    assert set(exchange.peers[0].opcodes) == {(0x0A, b"p")}
    assert len(exchange.peers[0].opcodes) <= 8
    world.check_tape()


async def test_all_lines_wait_and_one_that_refills_the_disk_stops_the_others_again(world: Desk) -> None:
    disk = Disk(world)

    def script(stream: str) -> Script:
        async def run(peer: Peer) -> None:
            await peer.subscribed()
            await until(lambda: disk.full)
            make = trade if "trade" in str(peer.requests) else quote
            await peer.send(*(make(number) for number in range(1, 1501)))
            await peer.hold()

        return run

    async with scripted(script("")) as exchange:
        trades = world.line(exchange.endpoint)
        quotes = world.line(exchange.endpoint, "bookTicker")
        async with running(trades), running(quotes):
            await until(lambda: trades.was_up.is_set() and quotes.was_up.is_set())
            disk.full = True
            await until(lambda: disk.refusals >= 3)
            # One append succeeds, the next does not: whoever is told first makes it refuse again.
            ends = disk.calls + 1
            disk.refuses = lambda call: call > ends
            disk.full = False
            await until(lambda: world.count > 0 and world.intake.stalled is not None)
            for line in (trades, quotes):
                assert line.current is not None
                assert not line.current.transport.underlying_transport.is_reading()
            disk.refuses = lambda call: False
            await until(lambda: world.count == 3000)
            assert trades.counts.reconnects == quotes.counts.reconnects == 0
    kinds = world.rows["kind"]
    for kind in (1, 2):
        assert [int(number) for number in world.rows["id"][kinds == kind]] == list(range(1, 1501))


async def test_a_line_that_comes_up_meanwhile_waits(world: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "ANSWER_WAIT_S", 0.02)
    disk = Disk(world)

    async def script(peer: Peer) -> None:
        await peer.receive()
        if len(exchange.peers) == 1:
            # The refusal begins between the request and its answer.
            disk.full = True
            world.intake.admit(row(4_001))
            await peer.send(frame(b'{"result":null,"id":1}'), *(trade(n) for n in range(1, 4001)))
        await peer.hold()

    async with scripted(script) as exchange, running(world.line(exchange.endpoint)) as line:
        await until(lambda: disk.refusals >= 8)
        assert line.counts.reconnects == 0, "nobody reads the answer, so nobody may miss it"
        late = world.line(exchange.endpoint, "bookTicker")
        async with running(late):
            await until(lambda: disk.refusals >= 12)
            assert exchange.attempts == 1, "no new connection while nothing can be taken"
            disk.full = False
            await until(lambda: world.count == 4001)
            await until(lambda: exchange.attempts >= 2)
    assert ids(world) == [4_001, *range(1, 4001)]


async def test_silence_during_a_refusal_is_nobodys_fault(world: Desk) -> None:
    disk = Disk(world)

    async def script(peer: Peer) -> None:
        await peer.subscribed()
        await until(lambda: disk.full)
        await peer.send(trade(1))
        await until(lambda: disk.refusals > 0)
        await peer.send(trade(2))
        await peer.hold()

    async with (
        scripted(script) as exchange,
        running(world.line(exchange.endpoint, idle_timeout_s=0.06)) as line,
    ):
        await until(line.was_up.is_set)
        disk.full = True
        await until(lambda: disk.refusals >= 15)
        disk.full = False
        await until(lambda: world.count == 2)
        assert line.counts.reconnects == 0


def row(number: int) -> Rows:
    rows = empty_rows(1)
    rows["kind"], rows["id"], rows["symbol_id"], rows["price"] = TRADE, number, 1, 5.0
    return rows


async def test_what_others_append_meanwhile_is_refused_plainly(world: Desk) -> None:
    disk = Disk(world)
    heard: list[tuple[bool, str | None]] = []
    world.intake.on_stall.append(lambda stalled: heard.append((stalled, world.intake.stalled)))
    disk.full = True
    assert world.intake.admit(row(1)) == 1
    assert heard == [(True, "the disk is full: free some space")]
    with pytest.raises(TapeError, match="free some space"):
        world.intake.admit(row(2))
    with pytest.raises(TapeError):
        world.intake.append(row(3))
    waiter = asyncio.create_task(world.intake.flowing())
    await until(lambda: disk.refusals >= 3)
    assert not waiter.done()
    disk.full = False
    await asyncio.wait_for(waiter, 5)
    await until(lambda: len(heard) == 2)
    assert heard[1] == (False, None)
    assert world.intake.admit(row(2)) == 1
    assert world.intake.admit(row(1)) == 0, "what waited counts as seen"
    assert ids(world) == [1, 2]
    assert ("tradeback_ingest_duplicates", "trade", 1) in list(samples(world.intake))


async def test_closing_gives_what_waits_its_last_chance(world: Desk) -> None:
    disk = Disk(world)
    disk.full = True
    world.intake.admit(row(1))
    disk.full = False
    world.intake.close()
    assert ids(world) == [1]
    calls = disk.calls
    await asyncio.sleep(0.03)
    assert disk.calls == calls, "no retry is left"
