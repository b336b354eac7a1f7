"""The fake exchange as a process, with the C relay as its client: small, but real."""

import ctypes
import itertools
import json
import time
import urllib.request
from collections.abc import Iterator

import pytest

from benchmarks.alternatives import c_relay
from benchmarks.harness import machine
from benchmarks.harness.children import ChildError
from benchmarks.harness.exchange import Exchange, Paced
from benchmarks.harness.source import subscribed
from benchmarks.harness.trades import symbol_names


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    with Exchange(machine.cores()[1], symbol_names(10)) as started:
        yield started


def test_rest_answers_like_the_exchange(exchange: Exchange) -> None:
    def get(path: str) -> object:
        with urllib.request.urlopen(f"{exchange.rest_endpoint}/api/v3/{path}") as answer:
            return json.loads(answer.read())

    info = get('exchangeInfo?symbols=["ETHUSDT"]')
    assert isinstance(info, dict)
    assert [symbol["symbol"] for symbol in info["symbols"]] == ["ETHUSDT"]
    rows = get("klines?symbol=BTCUSDT&interval=1m&limit=5")
    assert isinstance(rows, list)
    assert len(rows) == 5
    assert all(later[0] - row[0] == 60_000 == row[6] - row[0] + 1 for row, later in itertools.pairwise(rows))
    requests, _ = exchange.do("rest_quiet_s")
    assert requests >= 2


def test_a_relayed_run_arrives_whole_and_in_order(native: ctypes.CDLL, exchange: Exchange) -> None:
    with c_relay.relayed(exchange, machine.cores()[0]) as (_, receive):
        exchange.wait_streams("trade", 1)
        plan = Paced(time.monotonic_ns(), 50_000.0, 0, 500, 5)
        exchange.begin("paced", plan)
        received = receive(plan)
        assert len(exchange.end()) == 100
    assert len(received.latency_ns) == 500
    assert received.wrong == 0
    assert (received.latency_ns > 0).all()


def test_a_subscribed_source_starts_behind_its_reply(exchange: Exchange) -> None:
    wire = subscribed(exchange.stream_port, ["btcusdt@trade"])
    assert not wire.rest
    wire.sock.close()


def test_a_failing_child_is_heard(exchange: Exchange) -> None:
    with (
        Exchange(machine.cores()[0], symbol_names(10)) as other,
        pytest.raises(ChildError, match="LookupError"),
    ):
        other.do("paced", Paced(0, 1.0, 0, 1, 1))
