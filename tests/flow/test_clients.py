"""Clients of several makes, at the same time, on one engine: all see the trades of the tape."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.flow.replaying import joined, symbols_of, trades_of
from tests.flow.running import Engine, running_engine, running_market
from tests.flow.watching import Watcher, decode, window

SYMBOL = "BTCUSDT"
COUNT = 200
TAIL_COUNT = 20
Seen = list[tuple[float, float]]


async def output_of(*command: str) -> list[str]:
    """The lines a program prints until it ends, with code 0."""
    child = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(child.communicate(), 30)
    finally:
        if child.returncode is None:
            child.kill()
    assert child.returncode == 0, err.decode()
    return out.decode().splitlines()


async def by_aiohttp(engine: Engine) -> Seen:
    seen: Seen = []
    async with aiohttp.ClientSession() as http, http.ws_connect(engine.feed_url) as line:
        await line.send_json({"type": "subscribe", "symbols": [SYMBOL]})
        assert (await line.receive_json(timeout=10))["type"] == "subscribed"
        while len(seen) < COUNT:
            seen += [(price, volume) for _, price, volume in decode(await line.receive_bytes(timeout=10))]
    return seen


async def by_node(engine: Engine) -> Seen:
    node = shutil.which("node")
    if node is None:
        return []
    where = urlsplit(engine.url)
    script = str(Path(__file__).parent / "client.mjs")
    lines = await output_of(node, script, str(where.hostname), str(where.port), SYMBOL, str(COUNT))
    entries = [json.loads(line) for line in lines]
    assert len(entries) == COUNT
    assert {name for name, _, _ in entries} == {SYMBOL}
    return [(price, volume) for _, price, volume in entries]


async def by_tail(engine: Engine) -> Seen:
    arguments = ("tail", SYMBOL, "--json", "--count", str(TAIL_COUNT), "--url", engine.url)
    lines = [json.loads(line) for line in await output_of(sys.executable, "-m", "tradeback", *arguments)]
    assert len(lines) == TAIL_COUNT
    assert {line["symbol"] for line in lines} == {SYMBOL}
    return [(line["price"], line["volume"]) for line in lines]


def place_of(who: str, seen: Sequence[tuple[float, float]], truth: Seen) -> tuple[int, int]:
    """From which to which trade of the tape somebody saw everything. The first entry has no volume."""
    (price, volume), trades = seen[0], seen[1:]
    assert volume == 0.0, f"{who}: the last known price comes first"
    place = window(truth, trades)
    assert place is not None, f"{who}: no such run of trades on the tape: {trades[:3]} ..."
    assert truth[place - 1][0] == price, f"{who}: {price} was not the price before"
    return place, place + len(trades)


async def test_clients_of_every_make_see_the_same_trades(tmp_path: Path) -> None:
    async with running_market(tmp_path, 3, 2_500) as market, running_engine(
        tmp_path / "data", market.announced
    ) as engine:  # fmt: skip
        watcher = await Watcher.subscribe(engine.feed_url, SYMBOL)
        await watcher.saw(10)
        others = await asyncio.gather(by_aiohttp(engine), by_node(engine), by_tail(engine))
        await watcher.saw(watcher.count + 10)
        await watcher.close()
        trades = trades_of(joined(engine.tape()), symbols_of(engine.data_dir)[SYMBOL].id)
        truth = list(zip(trades["price"].tolist(), trades["quantity"].tolist(), strict=True))
        begin = window(truth, watcher.by_symbol()[SYMBOL])
        assert begin is not None, "websockets: no such run of trades on the tape"
        for who, seen in zip(("aiohttp", "node", "tail"), others, strict=True):
            if seen:
                first, last = place_of(who, seen, truth)
                assert begin <= first < last <= begin + watcher.count, f"{who} saw others than websockets"
    if not others[1]:
        reason = "no node: `make tools` installs it"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
