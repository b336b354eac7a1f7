"""Symbols that come and go at a hub while an edge follows it: the edge shows them, and loses nothing."""

import asyncio
import secrets
import signal
from pathlib import Path
from typing import Any

import aiohttp
import nats
import orjson

from tests.flow.replaying import joined, symbols_of, trades_of
from tests.flow.running import Engine, running_engine, running_market, until
from tests.flow.test_edge import check_same_as_far, running_edge, same_end
from tests.flow.test_symbols import (
    CONFIGURED,
    Follower,
    carries,
    described,
    has_bars,
    has_enigma,
    is_inactive,
    session_of,
)
from tests.servers.kinds import NatsServer
from tradeback.model.record import UNWATCHED
from tradeback.tape.reader import TapeReader

RATE = 1_500.0
WITHIN_S = 60.0
NEW = "SOLUSDT"


async def test_symbols_that_come_and_go_at_the_hub(tmp_path: Path, nats_server: NatsServer) -> None:
    node = f"flow-{secrets.token_hex(4)}"
    bus = {"NATS_URL": nats_server.url, "NATS_NODE": node, "NATS_STREAM_BYTES": "64MiB"}
    settings = {
        "EXCHANGE_SYMBOLS": ",".join(CONFIGURED), "EXCHANGE_WATCH_REFRESH": "200ms",
        "EXCHANGE_WATCH_GRACE": "300ms", **bus,
    }  # fmt: skip
    follower, connected = Follower(), asyncio.Event()
    async with running_market(tmp_path, 8, RATE) as market:  # noqa: SIM117
        async with (
            running_engine(tmp_path / "hub", market.announced, **settings) as hub,
            running_edge(tmp_path / "edge", bus) as edge,
        ):
            following = asyncio.create_task(follower.follow(edge.url, connected))

            async def seen(more: int = 0) -> None:
                await until(lambda: follower.saw(NEW, more) or following.done(), "the symbol", WITHIN_S)
                assert not following.done(), following.exception()

            await asyncio.wait_for(connected.wait(), WITHIN_S)
            async with session_of(hub.data_dir) as (watch, watch_id):
                assert await described(edge, NEW) is None
                assert await watch.add(watch_id, NEW)
                await seen()
                assert await described(edge, NEW) == await described(hub, NEW)
                await until(lambda: has_bars(edge, NEW), "its history at the edge", WITHIN_S)
                await until(lambda: has_enigma(edge, NEW), "its levels at the edge", WITHIN_S)

                await watch.remove(watch_id, NEW)
                await until(lambda: carries(hub, 2), "the end of its streams", WITHIN_S)
                await until(lambda: is_inactive(edge, NEW), "its end at the edge", WITHIN_S)
                before = len(follower.ids[NEW])
                await watch.add(watch_id, NEW)
                await seen(before)
                await until(lambda: same_description(hub, edge), "it again at the edge", WITHIN_S)
                await hub.history_complete()
                await same_bars_over_nats(nats_server.url, node, hub, on_demand=True)
                market.child.send_signal(signal.SIGSTOP)
                await same_end(hub, edge)
                await until(lambda: same_of_new(hub, edge), "the same of the symbol", WITHIN_S)
                await same_bars_over_nats(nats_server.url, node, hub, on_demand=False)
                await until(lambda: has_all(follower, edge), "the client at the tape's end", WITHIN_S)
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            await edge.stop()
            await hub.stop()
            market.child.send_signal(signal.SIGCONT)
    check_same_as_far(tmp_path / "hub", tmp_path / "edge")
    rows = joined(TapeReader(tmp_path / "edge" / "tape"))
    ids = {name: symbol.id for name, symbol in symbols_of(tmp_path / "hub").items()}
    assert {name: symbol.id for name, symbol in symbols_of(tmp_path / "edge").items()} == ids
    assert [int(row["symbol_id"]) for row in rows[rows["kind"] == UNWATCHED]] == [ids[NEW]]
    for name in (*CONFIGURED, NEW):
        trades, mine = trades_of(rows, ids[name])["id"].tolist(), follower.ids[name]
        begin = trades.index(mine[0])
        assert mine == trades[begin : begin + len(mine)], f"{name}: the client lost something"
    assert follower.ids[NEW][0] == trades_of(rows, ids[NEW])["id"][0], "it was there from its first trade on"


async def same_description(hub: Engine, edge: Engine) -> bool:
    here, there = await described(edge, NEW), await described(hub, NEW)
    return here == there and bool(here and here["is_active"])


async def same_of_new(hub: Engine, edge: Engine) -> bool:
    """What both say of the symbol that came, went, and came again."""
    for what in ("price", "enigma"):
        path = f"/api/v1/symbols/{NEW}/{what}"
        if await hub.get(path) != await edge.get(path):
            return False
    for resolution in ("1s", "1m", "1h"):
        path = f"/api/v1/symbols/{NEW}/bars"
        one, two = [await each.get(path, resolution=resolution) for each in (hub, edge)]
        if one["bars"][-100:] != two["bars"][-100:]:
            return False
    return True


def has_all(follower: Follower, edge: Engine) -> bool:
    """Whether the newest trade of every symbol has reached the client."""
    rows, known = joined(edge.tape()), symbols_of(edge.data_dir)
    return all(
        follower.ids[name][-1] == trades_of(rows, known[name].id)["id"][-1] for name in (*CONFIGURED, NEW)
    )


async def same_bars_over_nats(url: str, node: str, hub: Engine, *, on_demand: bool) -> None:
    """What the bus answers is what REST answers, to the last byte.

    `on_demand`: bars that are closed, and that the hub has to ask the exchange for. Else those of now, of a
    market that stands still.
    """
    connection = await nats.connect(url)
    now_s = max(bar["time"] for bar in (await hub.get(f"/api/v1/symbols/{NEW}/bars"))["bars"])
    old: list[dict[str, Any]] = [
        {"resolution": "5m", "from": now_s - (3_000 + step) * 300, "to": now_s - 2_500 * 300}
        for step in (0, 10)
    ]
    asks = old if on_demand else [{}, {"resolution": "1s"}, {"resolution": "1h"}, {"to": now_s}]
    try:
        async with aiohttp.ClientSession(hub.url) as http:
            for name in (*CONFIGURED, NEW):
                for place, ask in enumerate(asks):
                    payload = orjson.dumps({"symbol": name, **ask})
                    # Each of them is the first to ask for something. Whom the exchange keeps waiting says so.
                    async with asyncio.timeout(60):
                        while True:
                            found = await connection.request(
                                f"tradeback.req.bars.{node}", payload, timeout=30
                            )
                            if not orjson.loads(found.data)["loading"]:
                                break
                            await asyncio.sleep(0.05)
                    if on_demand and place:
                        assert len(orjson.loads(found.data)["bars"]) > 500
                    async with http.get(f"/api/v1/symbols/{name}/bars", params=ask) as answer:
                        assert (answer.status, found.data) == (200, await answer.read()), (name, ask)
    finally:
        await connection.close()
