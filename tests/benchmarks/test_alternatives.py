"""Every baseline does its work: a broadcast reaches all, an ingest takes every frame."""

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.alternatives import fanout_aiohttp, fanout_c, fanout_websockets, ingest_picows, ingest_raw
from benchmarks.harness import certificate, machine
from benchmarks.harness.children import Child
from benchmarks.harness.exchange import Exchange, Rounds
from benchmarks.harness.exchange_line import first_frame
from benchmarks.harness.trades import FIRST_ID, symbol_names, ws_header, ws_text
from benchmarks.path_fanout import baseline_payload

CLIENTS, BURST, ROUNDS = 3, 5, 10
POOL_FRAMES = 500
DRAIN_SECONDS_MAX = 5.0
SUBSCRIBED = "btcusdt@trade"
"""What the children of an ingest subscribe to, each with the id 1."""


@pytest.mark.parametrize("server", ["c", "aiohttp", "websockets"])
def test_broadcasts_reach_every_subscriber(native: ctypes.CDLL, server: str) -> None:
    payload, core = baseline_payload(BURST), machine.cores()[0]
    with Exchange(machine.cores()[1], symbol_names(10)) as exchange:
        port, burst_bytes = exchange.stream_port, BURST * exchange.frames.frame_bytes
        starts: dict[str, Callable[[], Child]] = {
            "c": lambda: Child(
                core, fanout_c.serve, port, burst_bytes, ws_header(len(payload), 2) + payload, CLIENTS
            ),
            "aiohttp": lambda: Child(core, fanout_aiohttp.serve, port, burst_bytes, payload),
            "websockets": lambda: Child(core, fanout_websockets.serve, port, burst_bytes, payload),
        }
        child = starts[server]()
        try:
            exchange.do("subscribe", child.hello, CLIENTS, [])
            got = exchange.do("rounds", Rounds(0, BURST, ROUNDS))
        finally:
            child.close()
    assert (got.frames, got.entries) == (CLIENTS * ROUNDS, CLIENTS * ROUNDS * BURST)
    assert (got.last_ns > 0).all()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_blast_arrives_whole(native: ctypes.CDLL, tmp_path: Path, tls: bool) -> None:
    names = symbol_names(20)
    made = certificate.make(tmp_path) if tls else None
    pem = made.certificate if made else None
    with Exchange(machine.cores()[1], names, made) as exchange:
        exchange.do("make_pool", POOL_FRAMES)
        core, endpoint = machine.cores()[0], exchange.ws_endpoint
        orjson = Child(core, ingest_picows.serve, endpoint, pem, names, "orjson")
        try:
            exchange.do("blast")
            wait_for(orjson, 2 * POOL_FRAMES, or_more=True)
            tally = exchange.do("halt_blast")
            wait_for(orjson, 1 + tally.frames)
            assert orjson.ask("sum")[1] == tally.id_sum + FIRST_ID - 1
        finally:
            orjson.close()
        raw = Child(core, ingest_raw.serve, endpoint, pem, names)
        try:
            greeting = len(ws_text('{"result":null,"id":1}') + first_frame(SUBSCRIBED))
            wait_for(raw, greeting)
            exchange.do("blast")
            wait_for(raw, greeting + 1, or_more=True)
            tally = exchange.do("halt_blast")
            wait_for(raw, greeting + tally.total_bytes)
        finally:
            raw.close()


def wait_for(child: Child, wanted: int, or_more: bool = False) -> None:
    """Until the child has taken so much: exactly, because more would be something never sent."""
    deadline = time.monotonic() + DRAIN_SECONDS_MAX
    while (taken := child.ask("snap")[1].taken) < wanted:
        assert time.monotonic() < deadline, f"{taken} of {wanted}"
    assert or_more or taken == wanted
