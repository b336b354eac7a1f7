"""Market watches: changes are told, limits hold, and the union outlives the registry."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stores.accounts_world import Notes, TestClock
from tradeback.stores.market_watch import MarketWatch, WatchFull
from tradeback.stores.registry_sqlite import RegistrySqlite
from tradeback.stores.sessions import Sessions


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistrySqlite]:
    made = RegistrySqlite(tmp_path / "registry.sqlite")
    yield made
    made.close()


async def test_changes_are_told_once(registry: RegistrySqlite) -> None:
    watch = MarketWatch(registry, TestClock(), Notes())
    told: list[tuple[str, str, bool]] = []
    watch.on_change.append(lambda *change: told.append(change))
    assert await watch.add("one", "B")
    assert not await watch.add("one", "B")
    assert await watch.add("one", "A")
    assert await watch.remove("one", "B")
    assert not await watch.remove("one", "B")
    assert await watch.symbols("one") == ["A"]
    assert told == [("one", "B", True), ("one", "A", True), ("one", "B", False)]


async def test_a_full_watch_says_so(registry: RegistrySqlite) -> None:
    watch = MarketWatch(registry, TestClock(), Notes(), symbols_max=2)
    await watch.add("one", "A")
    await watch.add("one", "B")
    with pytest.raises(WatchFull, match="2 symbols"):
        await watch.add("one", "C")
    assert not await watch.add("one", "A")


async def test_a_log_in_brings_the_anonymous_symbols_along(registry: RegistrySqlite) -> None:
    watch = MarketWatch(registry, TestClock(), Notes(), symbols_max=3)
    for symbol in ("A", "B"):
        await watch.add("user:1", symbol)
    for symbol in ("B", "C", "D"):
        await watch.add("anonymous", symbol)
    assert await watch.adopt("anonymous", "user:1") == ["C"]
    assert await watch.symbols("user:1") == ["A", "B", "C"]


async def test_the_union_of_live_sessions_is_kept_while_the_registry_is_away(tmp_path: Path) -> None:
    registry, clock, log = RegistrySqlite(tmp_path / "registry.sqlite"), TestClock(), Notes()
    sessions, watch = Sessions(registry, clock, log), MarketWatch(registry, clock, log)
    assert await watch.union() == frozenset()
    made = await sessions.create()
    await watch.add(made.record.watch_id, "BTCUSDT")
    await watch.add("of nobody", "ETHUSDT")
    assert await watch.union() == {"BTCUSDT"}
    registry.close()
    assert await watch.union() == {"BTCUSDT"}
    assert await watch.union() == {"BTCUSDT"}
    assert len(log.lines) == 1, "said once"
