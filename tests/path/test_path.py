"""path/path: what the kernels leave to Python, and that they go on where they stopped."""

import os
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.feed.harness import MemoryTape, rows_of
from tradeback.derive.row_kernel import apply_rows
from tradeback.derive.state import RING_BARS, Derived
from tradeback.feed.fanout import FanOut
from tradeback.feed.interest import InterestTable
from tradeback.kernel.jit import address
from tradeback.model.symbols import Symbol
from tradeback.path import layout as at
from tradeback.path.path import Path
from tradeback.wire.v1_kernel import encode_groups


class Nobody:
    """A station without clients."""

    def grow(self) -> None:
        raise AssertionError("nothing is encoded for nobody")

    def left_over(self, rests: NDArray[np.int64], position: int) -> None:
        raise AssertionError("nobody is left over")


def test_records_before_the_kernels_are_a_mistake() -> None:
    with pytest.raises(RuntimeError, match="attach"):
        Path(MemoryTape()).serve(1, 1)


def test_a_path_has_room_for_a_few_stations() -> None:
    path = Path(MemoryTape())
    for _ in range(at.STATIONS_MAX):
        path.add_station(Nobody(), address(encode_groups))
    with pytest.raises(ValueError, match="stations"):
        path.add_station(Nobody(), address(encode_groups))


def test_every_station_is_served_and_trades_count_once() -> None:
    tape = MemoryTape()
    path = Path(tape)
    path.attach()
    stations = [FanOut(path, InterestTable(), 1) for _ in range(2)]
    written: list[list[bytes]] = []
    for station in stations:
        station.attach(address(encode_groups))
        station.interests.grow_arena(60)  # a batch takes several passes

        class Fake:
            interest = frozenset({1})
            group: Any = None
            place = 0
            plain = False
            fd = -1
            lagging = False

            def __init__(self) -> None:
                self.got: list[bytes] = []
                self.write = self.got.append

        client = Fake()
        station.enter(client)
        written.append(client.got)
    path.serve(tape.append(rows_of([(1, 1.0, 2.0)] * 7 + [(2, 1.0, 1.0)])), 8)
    assert written[0] == written[1]
    assert len(written[0]) > 1
    assert path.trades == 8
    assert path.publish_latency.total == 8
    assert [station.position for station in stations] == [9, 9]


def test_readers_in_other_processes_are_told_once_of_every_commit() -> None:
    tape = MemoryTape()
    path = Path(tape)
    path.attach()
    published = np.zeros(1, np.int64)
    wakes = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
    path.serve(tape.append(rows_of([(1, 1.0, 2.0)])), 1)
    assert published[0] == 0, "nobody asked"
    path.announce(int(published.ctypes.data), wakes)
    path.serve(tape.append(rows_of([(1, 1.0, 2.0)] * 3)), 3)
    assert published[0] == tape.next_sequence == 5
    path.serve(tape.append(rows_of([(1, 1.0, 2.0)])), 1)
    assert published[0] == 6
    assert [os.eventfd_read(wake) for wake in wakes] == [2, 2]
    for wake in wakes:
        os.close(wake)


def test_a_full_ring_of_closed_bars_is_emptied_and_nothing_is_folded_twice() -> None:
    symbol = Symbol(1, "BTCUSDT", "BTC", "USDT", tick_size="0.01", step_size="0.001")
    tape, count = MemoryTape(1 << 15), RING_BARS + 100
    path = Path(tape)
    path.attach()
    derived, expected = Derived(), Derived()
    for state in (derived, expected):
        state.add_symbol(symbol)
    path.derive(derived, address(apply_rows), derived.context_address)
    rows = rows_of([(1, 1.0, 0.001)] * count)
    rows["exchange_us"] = 1_700_000_000_000_000 + np.arange(count) * 1_000_000  # a closed second each
    path.serve(tape.append(rows), count)
    expected.on_rows(int(rows.ctypes.data), count)
    assert derived.counters == expected.counters
    assert derived.closed_count == expected.closed_count > RING_BARS
    assert derived.closed(1, 0).tobytes() == expected.closed(1, 0).tobytes()
