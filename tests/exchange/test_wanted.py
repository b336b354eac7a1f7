"""exchange.wanted: market watches decide what is subscribed; simulated exchange, real registry."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.exchange.harness import CLOCK, QUICK, Desk, Logbook, desk, samples, until
from tests.exchange.test_pool import all_up, run_of
from tests.exchange.test_pool_symbols import FASTER, at_work
from tradeback.derive.completeness import Completeness
from tradeback.derive.state import Derived
from tradeback.exchange import requests
from tradeback.exchange.catalogue import Catalogue
from tradeback.exchange.rest import Rest
from tradeback.exchange.stall_watch import StallWatch
from tradeback.exchange.streams import stream_name
from tradeback.exchange.wanted import Wanted
from tradeback.model.errors import StoreError
from tradeback.model.record import QUOTE, TRADE, UNWATCHED
from tradeback.model.symbols import Symbol
from tradeback.sim.config import SimConfig
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer
from tradeback.stores.ports import SymbolRecord
from tradeback.stores.registry_sqlite import RegistrySqlite

CONFIGURED = 2


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "PACE_PERIOD_S", requests.PACE_PERIOD_S / FASTER)


class Ids:
    """The registry, which may be away."""

    def __init__(self, registry: RegistrySqlite) -> None:
        self.registry = registry
        self.away: Exception | None = None

    async def all_symbols(self) -> list[Symbol]:
        return await self.registry.all_symbols()

    async def assign_ids(self, records: Sequence[SymbolRecord]) -> list[Symbol]:
        if self.away is not None:
            raise self.away
        return await self.registry.assign_ids(records)


class World:
    """An engine's parts around a pool, and a market watch that a test writes."""

    def __init__(self, made: Desk, server: SimServer, registry: RegistrySqlite, **config: Any) -> None:
        self.desk, self.server, self.registry, self.ids = made, server, registry, Ids(registry)
        self.names = list(server.source.books)
        self.watched: set[str] | Exception = set()
        self.elsewhere: set[str] | Exception = set()
        self.learnt: list[str] = []
        self.told: list[tuple[str, bool]] = []
        self.log = Logbook()
        self.config = msgspec.structs.replace(
            QUICK, ws_endpoint=server.ws_url, watch_refresh_s=0.02, watch_grace_s=0.01, lines=1,
            **config,
        )  # fmt: skip
        self.rest = Rest(server.rest_url, CLOCK)
        self.derived = Derived(1)

    async def open(self, also: Iterable[str] = ()) -> None:
        """Everything as an engine makes it."""
        records = {record.symbol: record for record in await self.rest.symbols()}
        made = self.desk
        for symbol in self.registry.symbols():
            made.symbols.put(symbol)
        configured = self.registry.assign([records[name] for name in self.names[:CONFIGURED]])
        for symbol in configured:
            made.symbols.put(symbol)
        for symbol in made.symbols:
            self.derived.add_symbol(symbol)
            made.intake.add_symbol(symbol)
        self.pool = made.pool(
            self.server.ws_url, self.names[:CONFIGURED], 1, max_connections=self.config.max_connections
        )
        self.stalls = StallWatch(
            self.pool.lines, made.intake, made.symbols, self.rest, CLOCK, self.config, self.log
        )
        # The newest listing is one that the start has not seen.
        listed = [record for name, record in records.items() if name != self.names[-1]]
        sources = self._read, self._read_elsewhere
        self.wanted = Wanted(
            self.names[:CONFIGURED], also, sources, Catalogue(self.rest, listed, CLOCK), self.ids,
            made.symbols, (self.pool, made.intake, self.derived, self.stalls), self._learn, CLOCK,
            self.config, self.log,
        )  # fmt: skip
        self.wanted.on_symbols.append(self._tell)

    async def _read(self) -> Iterable[str]:
        if isinstance(self.watched, Exception):
            raise self.watched
        return set(self.watched)

    async def _read_elsewhere(self) -> Iterable[str]:
        if isinstance(self.elsewhere, Exception):
            raise self.elsewhere
        return set(self.elsewhere)

    async def _learn(self, symbols: Sequence[Symbol]) -> None:
        self.learnt += [symbol.symbol for symbol in symbols]

    def _tell(self, symbols: Sequence[Symbol]) -> None:
        for symbol in symbols:
            assert self.desk.symbols.find(symbol.symbol) == symbol
            self.told.append((symbol.symbol, symbol.symbol in self.pool.placement))

    def carried(self) -> set[str]:
        """The symbols of which the exchange sends all three streams; none when it sends a part of any."""
        held = [set(one._session.streams) for one in self.server.connections.values() if one._session]
        every = set().union(*held)
        names = {name for name in self.names if stream_name(name, "trade") in every}
        return names if len(every) == 3 * len(names) else set()

    def id_of(self, name: str) -> int:
        symbol = self.desk.symbols.find(name)
        assert symbol is not None
        return symbol.id

    def is_active(self, name: str) -> bool:
        (symbol,) = (symbol for symbol in self.registry.symbols() if symbol.symbol == name)
        return symbol.is_active

    def trades(self, name: str) -> list[int]:
        return run_of(self.desk, TRADE, self.id_of(name))


@asynccontextmanager
async def engine(
    folder: Path,
    symbols: int = 8,
    also: Iterable[str] = (),
    elsewhere: Exception | None = None,
    **config: Any,
) -> AsyncIterator[World]:
    """Lines and `Wanted` at work. In the same folder again: after a restart."""
    folder.mkdir(exist_ok=True)
    rules = SimConfig(start_after_streams=6, life_rate=FASTER)
    server = await SimServer.start(Synthetic(symbols, 2_000.0, seed=4), rules)
    registry = RegistrySqlite(folder / "registry.sqlite")
    with desk(folder, symbols=()) as made:
        # What an earlier run has left is no business of this reader.
        made.intake.readers.clear()
        world = World(made, server, registry, **config)
        world.elsewhere = elsewhere or set()
        if made.tape.next_sequence == 1:
            made.intake.readers.append(made.read)
        try:
            await world.open(also)
            async with at_work(world.pool):
                await all_up(world.pool)
                ended: list[Any] = []
                world.wanted.start(lambda task: ended.append(task) if not task.cancelled() else None)
                try:
                    yield world
                    assert [task for task in ended if task.exception() is not None] == []
                finally:
                    await world.wanted.stop()
        finally:
            await world.stalls.stop()
            await world.rest.close()
            registry.close()
            await server.stop()


async def test_a_watched_symbol_comes_with_all_that_it_needs(tmp_path: Path) -> None:
    async with engine(tmp_path) as world:
        new = world.names[5]
        assert world.wanted.lists(new)
        world.watched = {new, world.names[0]}
        world.wanted.changed("user:1", new, True)
        await until(lambda: new in world.learnt, 30)
        await until(lambda: len(world.trades(new)) > 5, 30)
        assert world.id_of(new) == CONFIGURED + 1
        assert world.told == [(new, False)], "everyone knows it before its streams are asked for"
        assert world.carried() == {*world.names[:CONFIGURED], new}
        assert world.is_active(new)
        assert world.derived.latest(world.id_of(new)) is not None
        rows = world.desk.rows
        assert UNWATCHED not in rows["kind"], "what is new has no past"
        assert world.stalls.health().details["streams"] == 3 * (CONFIGURED + 1)  # type: ignore[index]
        await until(lambda: world.wanted.health().state == "ok", 30)
        details = world.wanted.health().details or {}
        assert (details["configured"], details["watched"], details["carried"]) == (2, 1, 3)
        values = {name: value for name, _, value in samples(world.wanted)}
        assert values["tradeback_symbols_carried"] == 3
        assert values["tradeback_symbols_added"] == 1


async def test_one_that_nobody_watches_goes_and_comes_again_without_a_gap(tmp_path: Path) -> None:
    ledger = Completeness(0)
    async with engine(tmp_path) as world:
        new = world.names[5]
        world.watched = {new}
        await until(lambda: new in world.learnt and len(world.trades(new)) > 5, 30)
        number = world.id_of(new)
        world.watched = set()
        await until(lambda: world.carried() == set(world.names[:CONFIGURED]), 30)
        await until(lambda: not world.is_active(new), 30)
        assert world.id_of(new) == number
        held = world.desk.symbols.find(new)
        assert held is not None
        assert not held.is_active, "/symbols says so"
        await until(lambda: world.stalls.health().details["streams"] == 3 * CONFIGURED, 30)  # type: ignore[index]
        before = len(world.trades(new))
        await until(lambda least=world.desk.count + 1_500: world.desk.count > least, 30)  # type: ignore[misc]
        assert len(world.trades(new)) == before, "nothing comes of what nobody wants"
        failures, world.ids.away = world.wanted.failures, StoreError("away for a moment")
        world.watched = {new}
        await until(lambda: world.wanted.failures > failures + 3, 30)
        world.ids.away = None
        await until(lambda: len(world.trades(new)) > before + 5, 30)
        assert world.is_active(new)
        assert world.id_of(new) == number
        rows = world.desk.rows
        (place,) = [index for index, kind in enumerate(rows["kind"]) if kind == UNWATCHED]
        assert rows["symbol_id"][place] == number
        ids = world.trades(new)
        assert sorted(ids) != list(range(min(ids), max(ids) + 1)), "trades have gone by"
        ledger.feed(rows[: place + 1], 1)
        ledger.feed(rows[place + 1 :], place + 2)
        mine = [row for row in ledger.sweep(1 << 62) if row["symbol_id"] == number]
        assert mine == []
        assert world.desk.intake.context.missing_trades(number) == 0
        assert (world.wanted.came, world.wanted.went) == (2, 1)


async def test_a_restart_keeps_ids_and_what_is_watched(tmp_path: Path) -> None:
    async with engine(tmp_path) as world:
        kept, left = world.names[5], world.names[6]
        world.watched = {kept, left}
        await until(lambda: {kept, left} <= set(world.learnt), 30)
        held = {symbol.symbol: symbol.id for symbol in world.registry.symbols()}
    async with engine(tmp_path) as world:
        world.watched = {kept}
        await until(lambda: kept in world.learnt, 30)
        assert {symbol.symbol: symbol.id for symbol in world.registry.symbols()} == held
        assert world.is_active(kept)
        await until(lambda: not world.is_active(left), 30)
        assert world.carried() == {*world.names[:CONFIGURED], kept}
        tape = world.desk.tape
        kinds = tape.read(1, tape.next_sequence)["kind"]
        assert UNWATCHED not in kinds, "what it missed while it was down is missing"
    async with engine(tmp_path) as world:
        world.watched = {left}
        await until(lambda: left in world.learnt, 30)
        tape = world.desk.tape
        rows = tape.read(1, tape.next_sequence)
        assert [int(row["symbol_id"]) for row in rows if row["kind"] == UNWATCHED] == [held[left]]
        assert {symbol.symbol: symbol.id for symbol in world.registry.symbols()} == held


async def test_a_listing_that_is_younger_than_the_engine(tmp_path: Path) -> None:
    async with engine(tmp_path) as world:
        newest = world.names[-1]
        assert not world.wanted.lists(newest)
        world.watched = {newest, "NOPEUSDT", "NOT A SYMBOL", "X" * 40}
        await until(lambda: newest in world.learnt, 30)
        assert world.wanted.lists(newest)
        await until(lambda: set(world.wanted.unknown) == {"NOPEUSDT", "NOT A SYMBOL", "X" * 40}, 30)
        readings, asked = world.wanted.readings, world.rest.requests
        await until(lambda: world.wanted.readings > readings + 5, 30)
        assert world.rest.requests == asked, "nobody asks again"
        assert world.wanted.health().state == "ok"
        (said,) = world.log.of("does not have")
        assert said["symbols"] == 3
        assert world.registry.symbols()[-1].symbol == newest


async def test_more_than_fits_is_refused_and_reported(tmp_path: Path) -> None:
    """Nobody who is watched is dropped for another; one that is kept in grace is."""
    async with engine(tmp_path, max_connections=4) as world:
        world.wanted._grace_ns = int(3600e9)
        world.pool.placement._places = 4
        first = world.names[2:4]
        world.watched = set(first)
        await until(lambda: set(first) <= set(world.learnt), 30)
        world.watched = set(world.names[2:6])
        await until(lambda: len(world.wanted.refused) == 2, 30)
        await until(lambda: world.wanted.health().state == "degraded", 30)
        assert "EXCHANGE_MAX_CONNECTIONS" in str(world.wanted.health().last_error)
        assert world.carried() == set(world.names[:4])
        world.watched = set(world.names[3:6])
        next_one = min(world.names[4:6])
        await until(lambda: next_one in world.learnt, 30)
        kept = {*world.names[:2], world.names[3], next_one}
        assert world.carried() == kept
        assert not world.is_active(world.names[2])
        world.watched = {world.names[3]}
        await until(lambda: not world.wanted.refused, 30)
        await until(lambda: world.wanted.health().state == "ok", 30)
        assert world.carried() == kept, "for a while"


async def test_stores_that_are_away_change_nothing(tmp_path: Path) -> None:
    async with engine(tmp_path) as world:
        new, other = world.names[5:7]
        world.watched = {new}
        await until(lambda: new in world.learnt, 30)
        world.watched = StoreError("MySQL is away")
        failures = world.wanted.failures
        await until(lambda: world.wanted.failures > failures + 5, 30)
        assert new in world.carried()
        assert world.wanted.health().state == "degraded"
        assert "MySQL is away" in str(world.wanted.health().last_error)
        world.ids.away, world.watched = StoreError("the registry is away"), {other}
        await until(lambda: "the registry is away" in str(world.wanted.health().last_error), 30)
        assert new in world.carried(), "nothing goes that the registry has not written down"
        assert world.desk.symbols.find(other) is None
        world.ids.away = sqlite3.OperationalError("database or disk is full")
        await until(lambda: "disk is full" in str(world.wanted.health().last_error), 30)
        world.ids.away = None
        await until(lambda: other in world.learnt, 30)
        await until(lambda: world.carried() == {*world.names[:CONFIGURED], other}, 30)
        await until(lambda: world.wanted.health().state == "ok", 30)


async def test_one_of_two_sources_is_away(tmp_path: Path) -> None:
    """What it has said last holds; the other one is followed on. Before it has said anything nothing goes."""
    async with engine(tmp_path) as world:
        mine, theirs, more = world.names[4:7]
        world.watched, world.elsewhere = {mine}, {mine, theirs}
        await until(lambda: {mine, theirs} <= set(world.learnt), 30)
        world.elsewhere = StoreError("Redis is away")
        world.watched = {more}
        await until(lambda: more in world.learnt, 30)
        assert "Redis is away" in str(world.wanted.health().last_error)
        failures = world.wanted.failures
        await until(lambda: world.wanted.failures > failures + 5, 30)
        assert world.carried() == {*world.names[:CONFIGURED], mine, theirs, more}
        world.elsewhere = {theirs}
        await until(lambda: world.carried() == {*world.names[:CONFIGURED], theirs, more}, 30)
        await until(lambda: world.wanted.health().state == "ok", 30)
    async with engine(tmp_path, elsewhere=StoreError("Redis is away")) as world:
        world.watched = {more}
        await until(lambda: more in world.learnt, 30)
        failures = world.wanted.failures
        await until(lambda: world.wanted.failures > failures + 5, 30)
        assert world.is_active(theirs), "nobody knows whether it is watched"
        world.elsewhere = set()
        await until(lambda: not world.is_active(theirs), 30)
        assert world.is_active(more)


async def test_configured_symbols_that_had_to_wait_for_their_ids(tmp_path: Path) -> None:
    names = list(Synthetic(8, 1.0, seed=4).books)
    async with engine(tmp_path, also=[names[4]]) as world:
        await until(lambda: names[4] in world.learnt, 30)
        await until(lambda readings=world.wanted.readings + 5: world.wanted.readings > readings, 30)  # type: ignore[misc]
        assert names[4] in world.carried(), "nobody watches it, and it stays"


async def test_many_at_once_while_others_stream(tmp_path: Path) -> None:
    """Two hundred symbols come and go by the watches; the configured ones lose nothing."""
    async with engine(tmp_path, 210) as world:
        moving = world.names[CONFIGURED:202]
        for number in range(4):
            world.watched = set(moving[number * 20 : 200 if number == 2 else number * 20 + 60])
            wanted = {*world.names[:CONFIGURED], *world.watched}
            world.wanted.changed()
            await until(lambda wanted=wanted: world.carried() == wanted, 60)  # type: ignore[misc]
        await until(lambda: world.wanted.health().details["unwatched"] == 0, 30)  # type: ignore[index]
        ids = {symbol.symbol: symbol.id for symbol in world.registry.symbols()}
        assert sorted(ids.values()) == list(range(1, len(ids) + 1))
        assert sum(line.counts.reconnects for line in world.pool.lines) == 0
        for name in world.names[:CONFIGURED]:
            await until(lambda name=name: len(world.trades(name)) > 5, 60)  # type: ignore[misc]
            trades = world.trades(name)
            assert sorted(trades) == list(range(min(trades), min(trades) + len(trades)))
            await until(lambda name=name: run_of(world.desk, QUOTE, world.id_of(name)), 60)  # type: ignore[misc]


@pytest.mark.parametrize("places", [0, 3])
async def test_stopping_in_the_middle(tmp_path: Path, places: int) -> None:
    async with engine(tmp_path, 40) as world:
        world.watched = set(world.names)
        for _ in range(places):
            await asyncio.sleep(0)
