"""The exchange that breaks: each line gets each trade, REST has what is lost, a cut hits one line of two."""

import ctypes
import json
import re
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks.harness import machine
from benchmarks.harness.broken_exchange import SETTLED_SECONDS, BrokenExchange, Play, Played
from benchmarks.harness.trades import FIRST_ID, price_steps, symbol_names
from benchmarks.harness.websocket import TEXT, Wire, client_frame, connect

NAMES = symbol_names(10)
RATE = 5_000.0
COUNT = 500
"""So few that they fit into the sockets: nobody reads while they are sent."""


@pytest.fixture(scope="module")
def exchange(native: ctypes.CDLL) -> Iterator[BrokenExchange]:
    with BrokenExchange(machine.cores()[1], NAMES) as made:
        yield made


class Playing:
    """Numbers run on from one run to the next."""

    def __init__(self, exchange: BrokenExchange) -> None:
        self.exchange, self.next_number = exchange, 0

    def play(self, count: int, **what: float) -> tuple[int, Played]:
        """(first number, what came of it)."""
        first = self.next_number
        self.next_number += count
        plan = Play(time.monotonic_ns(), RATE, first, count, seed=5, **what)  # type: ignore[arg-type]
        return first, self.exchange.do("play", plan)


@pytest.fixture(scope="module")
def playing(exchange: BrokenExchange) -> Playing:
    return Playing(exchange)


@contextmanager
def lines(exchange: BrokenExchange, count: int) -> Iterator[list[Wire]]:
    """Connections that have subscribed to all trades and read their first frames."""
    wires = []
    before = exchange.do("streams", "trade")
    for _ in range(count):
        wire = connect(exchange.stream_port, "/stream")
        request = {"method": "SUBSCRIBE", "params": [f"{name.lower()}@trade" for name in NAMES], "id": 1}
        wire.sock.sendall(client_frame(json.dumps(request).encode()))
        assert b'"result"' in wire.frame()[1]
        assert b"@trade" in wire.frame()[1]
        wires.append(wire)
    exchange.wait_streams("trade", before + count * len(NAMES))
    try:
        yield wires
    finally:
        for wire in wires:
            wire.sock.close()
        exchange_is_quiet(exchange)


def exchange_is_quiet(exchange: BrokenExchange) -> None:
    deadline = time.monotonic() + 30
    while exchange.do("streams", "trade") and time.monotonic() < deadline:
        time.sleep(0.01)


def trades(wire: Wire, count: int) -> list[dict[str, Any]]:
    """The next `count` trades of a connection."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        opcode, payload = wire.frame()
        assert opcode == TEXT
        found.append(json.loads(payload)["data"])
    return found


def number_of(trade: dict[str, Any]) -> int:
    return int(trade["t"] - FIRST_ID) * len(NAMES) + NAMES.index(trade["s"])


def page(exchange: BrokenExchange, name: str, **query: object) -> list[dict[str, Any]]:
    words = "&".join(f"{key}={value}" for key, value in {"symbol": name, **query}.items())
    with urllib.request.urlopen(f"{exchange.rest_endpoint}/api/v3/historicalTrades?{words}") as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())
    return found


@pytest.mark.parametrize("awake", [False, True])
def test_both_lines_get_every_trade(exchange: BrokenExchange, playing: Playing, awake: bool) -> None:
    with lines(exchange, 2) as (a, b):
        first, played = playing.play(COUNT, awake=awake)
        ours, theirs = trades(a, COUNT), trades(b, COUNT)
    assert ours == theirs
    assert [number_of(trade) for trade in ours] == list(range(first, first + COUNT))
    assert (played.cuts, len(played.lost), len(played.late_ns)) == (0, 0, COUNT)


def test_what_no_line_brings_is_in_rest(exchange: BrokenExchange, playing: Playing) -> None:
    with lines(exchange, 2) as (a, b):
        first, played = playing.play(COUNT, losses_per_s=80.0, ids_per_loss=5)
        count = COUNT - len(played.lost)
        ours, theirs = trades(a, count), trades(b, count)
    assert ours == theirs
    assert 8 <= len(played.lost) <= 40
    numbers = {number_of(trade) for trade in ours}
    assert set(played.lost.tolist()) == set(range(first, first + COUNT)) - numbers
    steps = price_steps(0, first + COUNT)
    for name in NAMES:
        symbol, from_id = NAMES.index(name), FIRST_ID + first // len(NAMES)
        answered = page(exchange, name, fromId=from_id, limit=1_000)
        assert [row["id"] for row in answered] == list(range(from_id, from_id + COUNT // len(NAMES)))
        sent = {trade["t"]: trade for trade in ours if trade["s"] == name}
        for row in answered:
            step = steps[(row["id"] - FIRST_ID) * len(NAMES) + symbol]
            assert float(row["price"]) == pytest.approx(60_000 + step / 100, abs=1e-9)
            assert re.fullmatch(r"\d{5}\.\d{8}", row["qty"])
            if row["id"] in sent:
                there = sent[row["id"]]
                assert (row["price"], row["qty"]) == (there["p"], there["q"])
                assert abs(row["time"] - there["T"]) < 100_000
        assert page(exchange, name, limit=3) == answered[-3:]


def test_a_cut_resets_one_line_and_the_other_goes_on(exchange: BrokenExchange, playing: Playing) -> None:
    with lines(exchange, 2) as wires:
        time.sleep(0.05)
        time.sleep(SETTLED_SECONDS)  # until both count as up
        first, played = playing.play(COUNT, cuts_per_s=50.0)
        assert (played.cuts, played.cuts_of_trades) == (1, 1), "the last one of a kind is left alone"
        whole, reset = [], 0
        for wire in wires:
            try:
                whole.append(trades(wire, COUNT))
            except ConnectionResetError:
                reset += 1
        assert reset == 1
        ((survivor,),) = (whole,)
        assert [number_of(trade) for trade in survivor] == list(range(first, first + COUNT))


def test_a_line_that_goes_by_itself_is_no_trouble(exchange: BrokenExchange, playing: Playing) -> None:
    with lines(exchange, 2) as (a, b):
        a.sock.shutdown(socket.SHUT_RDWR)
        first, played = playing.play(COUNT)
        assert [number_of(trade) for trade in trades(b, COUNT)] == list(range(first, first + COUNT))
    assert played.cuts == 0
