"""Whose a settlement is: a user's on all devices, or a session's; who is told, who may read it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.api.access_world import LOGIN, SECRET, ask, token_of
from tests.api.history_world import BEGIN_S
from tests.api.test_settlement import Market, at_ms
from tests.feed.harness import World, text
from tests.stores.accounts_world import Notes
from tradeback.api.access import Access, owner_of
from tradeback.api.gate import SocketGate
from tradeback.serving import make_access
from tradeback.stores.registry_sqlite import RegistrySqlite
from tradeback.stores.users import Passwords, Users

PATH = "/api/v1/settlements"
BODY = {"symbol": "BTCUSDT", "time": at_ms(5)}


class Town:
    """A market whose port knows users."""

    def __init__(self, market: Market, access: Access) -> None:
        self.market, self.access = market, access
        self.browsers: list[aiohttp.ClientSession] = []

    def browser(self) -> aiohttp.ClientSession:
        jar = aiohttp.CookieJar(unsafe=True)
        made = aiohttp.ClientSession(self.market.running.http, cookie_jar=jar)
        self.browsers.append(made)
        return made

    async def device(self, name: str, **more: Any) -> aiohttp.ClientSession:
        """A browser of a user; the user is made when there is none."""
        if name not in [user.username for user in await self.access.users.all()]:
            await self.access.users.add(name, SECRET)
        made = self.browser()
        await self.log_in(made, name, **more)
        return made

    async def log_in(self, http: aiohttp.ClientSession, name: str, **more: Any) -> None:
        status, told = await ask(http, "POST", LOGIN, json={"username": name, "password": SECRET, **more})
        assert status == 200, told

    def socket(self, http: aiohttp.ClientSession) -> Any:
        cookie = {"Cookie": f"session_token={token_of(http)}"}
        return self.market.running.connect(additional_headers=cookie)


@asynccontextmanager
async def guarded(market: Market, folder: Path) -> AsyncIterator[Town]:
    registry = RegistrySqlite(folder / "registry.sqlite")
    context = market.running.context
    access = make_access(context.config, market.clock, market.running.feed, registry, Notes())
    access.users = Users(registry, market.clock, Passwords(memory_kib=64))
    context.access, context.owner_of = access, owner_of
    market.running.front.gate = SocketGate(access)
    market.desk.push = access.push
    access.attendance.start()
    town = Town(market, access)
    try:
        yield town
    finally:
        for browser in town.browsers:
            await browser.close()
        await access.attendance.stop()
        registry.close()


@pytest.fixture
async def town(served: World, tmp_path: Path) -> AsyncIterator[Town]:
    market = Market(served, tmp_path)
    async with guarded(market, tmp_path) as made:
        yield made
    await market.desk.stop()
    market.store.close()
    market.source.store.close()


async def ids(http: aiohttp.ClientSession) -> list[str]:
    status, told = await ask(http, "GET", PATH)
    assert status == 200
    return [one["id"] for one in told["settlements"]]


async def only_pong(ws: Any) -> bool:
    """Nothing came before the answer to this ping."""
    await ws.send('{"type":"ping"}')
    return bool((await text(ws))["type"] == "pong")


async def test_all_sockets_of_a_user_are_told_and_nobody_elses(town: Town) -> None:
    market = town.market
    market.trade(1, 10)
    phone, desk, other = [await town.device(name) for name in ("alice", "alice", "bob")]
    status, made = await ask(phone, "POST", PATH, json=BODY)
    assert (status, made["status"]) == (201, "waiting")
    assert (await ask(desk, "POST", PATH, json=BODY)) == (200, made), "the same user asks for the same"
    status, others = await ask(other, "POST", PATH, json=BODY | {"time": at_ms(500)})
    assert status == 201
    async with (
        town.socket(phone) as first,
        town.socket(phone) as second,
        town.socket(desk) as third,
        town.socket(other) as fourth,
        market.running.connect() as nobodys,
    ):
        market.trade(9, 11)
        await market.step()
        for ws in (first, second, third):
            message = await text(ws)
            assert (message["type"], message["data"]["id"]) == ("settlement", made["id"])
            assert message["data"]["status"] == "settled"
            assert await only_pong(ws), "once"
        assert await only_pong(fourth)
        assert await only_pong(nobodys)
    assert await ids(phone) == await ids(desk) == [made["id"]]
    assert await ids(other) == [others["id"]]


async def test_a_users_own_is_read_by_him_alone_also_after_the_next_log_in(town: Town) -> None:
    town.market.trade(1, 10)
    alice, bob = await town.device("alice"), await town.device("bob")
    _, made = await ask(alice, "POST", PATH, json=BODY)
    mine = f"{PATH}/{made['id']}"
    assert await ask(alice, "GET", mine) == (200, made)
    for stranger in (bob, town.browser()):
        status, told = await ask(stranger, "GET", mine)
        assert (status, told["error"]["code"]) == (404, "not_found"), "not even that it is there"
    assert (await ask(alice, "POST", "/api/v1/auth/logout"))[0] == 204
    assert (await ask(alice, "GET", mine))[0] == 404
    assert await ids(alice) == []
    await town.log_in(alice, "alice")
    town.market.trade(9, 11)
    await town.market.step()
    status, read = await ask(alice, "GET", mine)
    assert (status, read["status"], read["trade_id"]) == (200, "settled", 10)
    assert await ids(alice) == [made["id"]], "the session that asked is long over"


async def test_what_nobody_asked_for_by_name_is_read_by_its_id(town: Town) -> None:
    town.market.trade(1, 10)
    _, made = await ask(town.browser(), "POST", PATH, json=BODY)
    assert await ask(town.browser(), "GET", f"{PATH}/{made['id']}") == (200, made)
    assert await ids(town.browser()) == [], "but it is nobody else's"


async def test_after_a_log_in_it_is_the_users(town: Town) -> None:
    market = town.market
    market.trade(1, 10)
    browser, elsewhere = town.browser(), await town.device("alice")
    _, waits = await ask(browser, "POST", PATH, json=BODY)
    _, too = await ask(browser, "POST", PATH, json=BODY | {"time": at_ms(3)})
    await town.log_in(browser, "alice")
    async with town.socket(browser) as here, town.socket(elsewhere) as there:
        market.trade(9, 11)
        await market.step()
        for ws in (here, there):
            assert {(await text(ws))["data"]["id"] for _ in range(2)} == {waits["id"], too["id"]}
    assert set(await ids(elsewhere)) == {waits["id"], too["id"]}
    assert (await ask(town.browser(), "GET", f"{PATH}/{waits['id']}"))[0] == 404
    assert market.desk._of_owner == {}


async def test_a_session_that_may_not_see_the_symbol_hears_nothing_of_it(town: Town) -> None:
    market = town.market
    market.trade(1, 10)
    whole, narrow = await town.device("alice"), await town.device("alice", symbols=["ETHUSDT"])
    _, made = await ask(whole, "POST", PATH, json=BODY)
    assert (await ask(narrow, "POST", PATH, json=BODY))[0] == 403
    async with town.socket(whole) as told, town.socket(narrow) as not_told:
        market.trade(9, 11)
        await market.step()
        assert (await text(told))["data"]["id"] == made["id"]
        assert await only_pong(not_told)
    assert (await ask(narrow, "GET", f"{PATH}/{made['id']}"))[0] == 403
    assert await ids(narrow) == []
    assert await ids(whole) == [made["id"]]
    assert market.clock.now_s == BEGIN_S
