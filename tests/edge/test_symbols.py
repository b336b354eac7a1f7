"""edge/symbols: the hub's symbols under the hub's ids."""

import asyncio
from pathlib import Path

import orjson
import pytest

from tests.sinks.drain_world import LOG, SystemTime
from tradeback.api.shapes import symbol_json
from tradeback.edge import symbols as module
from tradeback.edge.symbols import HubSymbols, symbols_of
from tradeback.model.errors import StartupError
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.ops.log import get_log
from tradeback.stores.bus_local import LocalBus
from tradeback.stores.ports_bus import Message
from tradeback.stores.registry_sqlite import RegistrySqlite

BTC = Symbol(1, "BTCUSDT", "BTC", "USDT", tick_size="0.01", step_size="0.001", min_notional="5")
ETH = Symbol(7, "ETHUSDT", "ETH", "USDT", is_active=False)


class World:
    """A hub that tells symbols over a bus in the process."""

    def __init__(self, folder: Path) -> None:
        self.told: list[Symbol] = [BTC]
        self.bus, self.table = LocalBus(LOG), SymbolTable()
        self.registry = RegistrySqlite(folder / "registry.sqlite")
        self.symbols = HubSymbols(self.bus, "here", self.table, self.registry, SystemTime(), get_log("hub"))
        self.heard: list[str] = []
        self.symbols.on_symbols.append(lambda fresh: self.heard.extend(each.symbol for each in fresh))

    async def answer(self, message: Message) -> bytes:
        return orjson.dumps([symbol_json(symbol) for symbol in self.told])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_what_is_new_is_learnt_and_kept(world: World) -> None:
    await world.symbols.ask()
    assert "does not answer" in str(world.symbols.health().last_error)
    assert world.symbols.health().state == "degraded"
    await world.bus.answer("tradeback.req.symbols.here", world.answer)
    await world.symbols.first()
    assert list(world.table) == [BTC] == world.registry.symbols()
    assert world.symbols.health().state == "ok"
    world.told = [BTC, ETH]
    await world.symbols.ask()
    await world.symbols.ask()
    assert world.heard == ["BTCUSDT", "ETHUSDT"]
    assert world.registry.symbols() == [BTC, ETH]
    await world.bus.close()


async def test_records_of_a_symbol_wait_until_it_is_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SOON_S", 0.01)
    await world.bus.answer("tradeback.req.symbols.here", world.answer)
    waiting = asyncio.create_task(world.symbols.know({1, 7}))
    async with asyncio.timeout(30):
        while "does not tell what symbols" not in str(world.symbols.last_error):
            await asyncio.sleep(0.005)
        assert not waiting.done()
        world.told = [BTC, ETH]
        await waiting
    assert world.table.by_id(7) == ETH
    await world.bus.close()


@pytest.mark.parametrize("held", [Symbol(1, "OTHERUSDT"), Symbol(2, "BTCUSDT")])
async def test_a_hub_that_numbers_otherwise_is_refused(world: World, held: Symbol) -> None:
    world.registry.copy([held])
    world.table.put(held)
    await world.bus.answer("tradeback.req.symbols.here", world.answer)
    with pytest.raises(StartupError, match="take another DATA_DIR"):
        await world.symbols.ask()
    await world.bus.close()


@pytest.mark.parametrize("payload", [b"{}", b"3", b"[3]", b'[{"id":1}]', b'{"error":{"message":"no"}}', b"["])
def test_what_is_no_answer_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        symbols_of(payload)
