"""The C ends against Python: what is sent, what is received, and that faults are seen."""

import ctypes
import json
import socket
import struct
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.harness import native as native_module
from benchmarks.harness.native import NoCompiler, address
from benchmarks.harness.trades import FIRST_ID, price_steps, symbol_names, trade_frames, ws_header
from benchmarks.harness.websocket import Wire

COUNT, BURST = 200, 5
STAMP_OFFSET = 10**12


Paced = Callable[..., list[dict[str, object]]]


@pytest.fixture
def paced(native: ctypes.CDLL) -> Paced:
    """What `paced_trades` sends, decoded."""

    def run(count: int, rate: float, burst: int, *, catch_up: bool, wait_s: float) -> list[dict[str, object]]:
        frames = trade_frames(symbol_names(3))
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        late = np.zeros(count // burst + 2, np.int64)
        done: list[int] = []

        def send() -> None:
            number = native.paced_trades(
                ours.fileno(), frames.frames, ctypes.byref(frames.layout), time.monotonic_ns(), rate, 7,
                count, burst, int(catch_up), address(late),
            )  # fmt: skip
            done.append(number)

        with ours, theirs:
            wire = Wire(theirs)
            sender = threading.Thread(target=send)
            sender.start()
            time.sleep(wait_s)
            found = [json.loads(wire.frame()[1])["data"] for _ in range(count)]
            sender.join()
        assert done == [count]
        return found

    return run


@pytest.fixture
def sent(paced: Paced) -> list[dict[str, object]]:
    """A short run."""
    return paced(COUNT, 100_000.0, BURST, catch_up=True, wait_s=0.0)


@pytest.mark.parametrize("catch_up", [True, False])
def test_a_late_sender_makes_bursts_only_when_it_is_to(paced: Paced, catch_up: bool) -> None:
    """It is made late by a receiver that does not read for as long as 500 trades take."""
    trades = paced(600, 10_000.0, 1, catch_up=catch_up, wait_s=0.05)
    assert [trade["t"] for trade in trades] == [FIRST_ID + number // 3 for number in range(7, 607)]
    stamps = np.array([round(float(str(trade["q"])) * 1e8) for trade in trades])
    # A send takes 3 us on a machine that is quiet, and 40 on one that is not; 100 are between two of them.
    at_once = int((np.diff(stamps) < (70_000 if catch_up else 25_000)).sum())
    assert at_once > 200 if catch_up else at_once < 60


def test_paced_trades_carry_number_and_time(sent: list[dict[str, object]]) -> None:
    names = symbol_names(3)
    numbers = range(7, 7 + COUNT)
    assert [trade["s"] for trade in sent] == [names[number % 3] for number in numbers]
    assert [trade["t"] for trade in sent] == [FIRST_ID + number // 3 for number in numbers]
    steps = [round((float(str(trade["p"])) - 60_000) * 100) for trade in sent]
    assert steps == price_steps(7, COUNT).tolist()
    stamps = [round(float(str(trade["q"])) * 1e8) - STAMP_OFFSET for trade in sent]
    assert stamps == sorted(stamps)
    assert len(set(stamps)) == COUNT // BURST
    assert 0 < stamps[0] < stamps[-1] < 10**10
    assert all(trade["E"] == trade["T"] for trade in sent)


def feed_frame(trades: list[tuple[int, int, int]]) -> bytes:
    """A v1 frame of (wire id, trade number, stamp)."""
    body = len(trades).to_bytes(2, "little") + b"".join(
        struct.pack("<Hdd", wire_id, 60_000 + price_steps(number, 1)[0] / 100, (stamp + STAMP_OFFSET) / 1e8)
        for wire_id, number, stamp in trades
    )
    payload = bytes(4) + body
    return ws_header(len(payload), 2) + payload


def receive(native: ctypes.CDLL, data: bytes, count: int) -> tuple[int, list[int], int, int]:
    """(taken, latencies, wrong, frames) of the C receiver with symbols of wire ids 11 and 12."""
    places = np.full(65_536, -1, np.int32)
    places[[11, 12]] = [0, 1]
    coming = np.array([0, 1], np.int64)
    latency, wrong, frames = np.zeros(count, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64)
    ours, theirs = socket.socketpair()

    def send() -> None:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)

    with ours, theirs:
        sender = threading.Thread(target=send)
        sender.start()
        taken = native.receive_v1(
            theirs.fileno(), address(places), address(coming), 2, 0, count,
            address(latency), address(wrong), address(frames),
        )  # fmt: skip
        sender.join()
    return taken, latency.tolist(), int(wrong[0]), int(frames[0])


def test_the_feed_receiver_counts_and_times(native: ctypes.CDLL) -> None:
    stamp = time.monotonic_ns()
    reply = b'{"type":"subscribed"}'
    snapshot = bytes(4) + (1).to_bytes(2, "little") + struct.pack("<Hdd", 11, 60_000.0, 0.0)
    data = (
        ws_header(len(reply)) + reply + ws_header(len(snapshot), 2) + snapshot
        + feed_frame([(11, 0, stamp), (12, 1, stamp)])
        + feed_frame([(11, number, stamp) for number in range(2, 80, 2)])
    )  # fmt: skip
    taken, latency, wrong, frames = receive(native, data, 41)
    assert (taken, wrong, frames) == (41, 0, 3)
    assert all(0 <= value < 10**9 for value in latency)


@pytest.mark.parametrize(
    "trades",
    [
        pytest.param([(11, 2, 1)], id="lost"),
        pytest.param([(11, 0, 1), (11, 0, 1)], id="twice"),
        pytest.param([(11, 2, 1), (11, 0, 1)], id="order"),
        pytest.param([(13, 0, 1)], id="foreign symbol"),
    ],
)
def test_the_feed_receiver_sees_faults(native: ctypes.CDLL, trades: list[tuple[int, int, int]]) -> None:
    assert receive(native, feed_frame(trades), len(trades))[2] > 0


def test_without_a_compiler_there_is_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler-anywhere")
    with pytest.raises(NoCompiler, match="no-such-compiler-anywhere not found"):
        native_module.build()
