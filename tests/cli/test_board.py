"""cli.board: rates, directions, latencies, and what the greeting tells to open."""

import io
import json
import re
import shutil
import subprocess

import pytest
from rich.console import Console
from websockets.asyncio.server import ServerConnection

from tests.client.engine_double import answer_subscribe, engine_double, frame
from tradeback.cli import board as boards
from tradeback.client import BatchV1, Control, Feed, FeedSymbol, connect
from tradeback.ops.exposition import render
from tradeback.ops.metrics import Family, Histogram
from tradeback.wire.v1 import make_entries

BTC = FeedSymbol(1, "BTCUSDT", 2, 5)
ETH = FeedSymbol(2, "ETHUSDT", 2, 4)


@pytest.fixture
def feed() -> Feed:
    made = connect("http://nowhere", reconnect=False)
    made.symbols.update({1: BTC, 2: ETH})
    return made


def take(board: boards.Board, feed: Feed, *entries: tuple[int, float, float]) -> None:
    board.take(BatchV1(make_entries(entries), 0), feed)


def test_snapshots_are_prices_but_no_trades(feed: Feed) -> None:
    board = boards.Board()
    take(board, feed, (1, 100.0, 0.0), (2, 5.0, 0.0))
    assert (board.trades, board.rows[1].price, board.rows[1].direction) == (0, 100.0, 0)
    take(board, feed, (1, 101.0, 1.0), (1, 101.0, 1.0))
    assert (board.trades, board.rows[1].price, board.rows[1].direction) == (2, 101.0, 1)
    take(board, feed, (1, 99.0, 1.0))
    assert board.rows[1].direction == -1


def test_rates_are_per_second_and_follow(feed: Feed) -> None:
    board = boards.Board()
    take(board, feed, *[(1, 1.0, 1.0)] * 50)
    board.refresh(0.5)
    assert board.rate == 100.0
    for _ in range(40):
        board.refresh(0.5)
    assert board.rate < 1e-3


def test_enigma_goes_to_its_symbol_also_before_the_first_trade(feed: Feed) -> None:
    board = boards.Board()
    board.take(Control({"type": "subscribed", "symbols": {}}), feed)
    for name, level in (("ETHUSDT", 61.8), ("UNKNOWN", 1.0)):
        board.take(Control({"type": "enigma", "data": {"symbol": name, "level": level}}), feed)
    assert (board.rows[1].level, board.rows[2].level) == (None, 61.8)


def metrics(*values_us: int) -> str:
    held = Histogram()
    for value in values_us:
        held.observe(value)
    return render([Family(boards.HOPS["receive to publish"], "histogram", "h").add(held)]).decode()


def test_latencies_are_those_of_the_last_interval() -> None:
    board = boards.Board()
    board.take_metrics(metrics(*[40] * 99, 4_000_000))
    assert board.latencies["receive to publish"] == (50e-6, 50e-6)
    board.take_metrics(metrics(*[40] * 99, 4_000_000, 900, 900))
    assert board.latencies["receive to publish"] == (1e-3, 1e-3)
    assert board.latencies["exchange to receive"] is None


def test_both_views_show_the_same_numbers(feed: Feed) -> None:
    board = boards.Board()
    take(board, feed, (1, 1.0, 1.0), (2, 1234.5, 1.0), (2, 1234.5, 1.0))
    board.take(Control({"type": "enigma", "data": {"symbol": "ETHUSDT", "level": 61.8}}), feed)
    board.take_metrics(metrics(40))
    board.refresh(1.0)
    out = Console(file=io.StringIO(), width=120)
    out.print(boards.table(board, 1))
    assert isinstance(out.file, io.StringIO)
    for words in (boards.summary(board), out.file.getvalue().replace(",", "")):
        for number in ("ETHUSDT", "1234.50", "61.80", "3 trades/s", "p50 50 us p99 50 us"):
            assert number in words
    assert "1 quieter symbols not shown" in out.file.getvalue()


def test_the_busiest_are_shown_in_a_stable_order(feed: Feed) -> None:
    board = boards.Board()
    feed.symbols[3] = FeedSymbol(3, "C", 0, 0)
    take(board, feed, (3, 1.0, 1.0), (2, 1.0, 1.0), (3, 1.0, 1.0), (2, 1.0, 1.0), (1, 1.0, 1.0))
    assert [row.symbol.id for row in board.shown(2)] == [2, 3]


def test_the_greeting_names_the_address_where_needed() -> None:
    ours = boards.greeting("http://127.0.0.1:8080", [ETH, BTC], "tradeback", "http://127.0.0.1:8080")
    assert "tradeback tail BTCUSDT\n" in ours
    other = boards.greeting("http://127.0.0.1:9", [ETH], "tradeback", "http://127.0.0.1:8080")
    assert "tradeback tail ETHUSDT --url http://127.0.0.1:9\n" in other
    assert "ws://127.0.0.1:9/api/v1/ws" in other


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
async def test_the_line_for_node_works_as_printed() -> None:
    """Where node has no WebSocket of its own (before 22) a recorder in its place shows what would be sent."""
    line = re.search(r"node -e '(.*)'$", boards.greeting("http://h", [BTC], "t", ""), re.MULTILINE)
    assert line is not None
    fake = (
        "const sent=[];WebSocket=function(url){this.url=url;this.send=text=>sent.push([url,text])};"
        f"{line[1]};w.onopen();w.onmessage({{data:'hello'}});"
        f"w.onmessage({{data:Uint8Array.from({list(frame((1, 42.5, 0.25), (7, 3.0, 1.0)))}).buffer}});"
        "console.log(JSON.stringify(sent))"
    )
    done = subprocess.run(["node", "-e", fake], capture_output=True, text=True, check=True)
    *shown, sent = done.stdout.splitlines()
    assert shown == ["hello", "1 42.5 0.25", "7 3 1"]
    ((url, text),) = json.loads(sent)
    assert url == "ws://h/api/v1/ws"
    assert json.loads(text) == {"type": "subscribe", "symbols": ["BTCUSDT"]}


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
async def test_the_line_for_node_sees_trades() -> None:
    """The same against a socket, where node has a WebSocket."""
    import asyncio

    probe = subprocess.run(["node", "-p", "typeof WebSocket"], capture_output=True, text=True, check=True)
    if probe.stdout.strip() != "function":
        pytest.skip("this node has no WebSocket of its own")

    async def script(connection: ServerConnection) -> None:
        await answer_subscribe(connection)
        await connection.send(frame((1, 42.5, 0.25)))
        await connection.close()

    async with engine_double(script) as url:
        line = re.search(r"node -e '(.*)'$", boards.greeting(url, [BTC], "t", ""), re.MULTILINE)
        assert line is not None
        process = await asyncio.create_subprocess_exec(
            "node", "-e", line[1], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert out.decode().splitlines()[-1] == "1 42.5 0.25"
