"""The harness drives the real `tradeback run`: what is measured arrives, on the feed and on the tape."""

import ctypes
import time
from pathlib import Path

from benchmarks.harness import machine
from benchmarks.harness.engine import Engine
from benchmarks.harness.exchange import Exchange, Paced, Rounds
from benchmarks.harness.receivers import receive_feed
from benchmarks.harness.tape_files import sums
from benchmarks.harness.trades import FIRST_ID, price_steps, symbol_names

COUNT, BURST, CLIENTS, ROUNDS = 500, 5, 3, 10


def test_paced_trades_and_broadcasts_arrive_exactly(native: ctypes.CDLL) -> None:
    names = symbol_names(10)
    with Exchange(machine.cores()[1], names) as exchange, Engine(exchange, names, None) as engine:
        assert engine.wait_ready() >= engine.port_open_s > 0
        exchange.wait_streams("trade", len(names))
        with receive_feed(engine.port, names) as receive:
            plan = Paced(time.monotonic_ns(), 20_000.0, 0, COUNT, BURST)
            exchange.begin("paced", plan)
            received = receive(plan)
            exchange.end()
        assert (len(received.latency_ns), received.wrong) == (COUNT, 0)
        assert (received.latency_ns > 0).all()

        exchange.do("subscribe", engine.port, CLIENTS, names)
        got = exchange.do("rounds", Rounds(COUNT, BURST, ROUNDS))
        assert got.entries == CLIENTS * ROUNDS * BURST
        assert got.price_sum == CLIENTS * price_steps(COUNT, ROUNDS * BURST).sum()

        trades = COUNT + ROUNDS * BURST
        first = exchange.do("first_frames")
        on_tape = sums(engine.folder / "data")
        assert (on_tape.rows, on_tape.intact) == (trades + first, True)
        assert on_tape.id_sum == sum(FIRST_ID + number // 10 for number in range(trades)) + first * (
            FIRST_ID - 1
        )
        folder: Path = engine.folder
    assert engine.process.returncode == 0, "Ctrl-C ends it cleanly"
    assert not folder.exists()
