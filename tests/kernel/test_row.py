"""The record's layout and checksum: kernel and numpy are the same, and every bit counts."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.kernel import row as layout
from tradeback.kernel.jit import kernel
from tradeback.model.record import ROW_BYTES, TICK, Rows, checksums, count_intact, seal


@kernel("void(int64,int64,int64)")
def seal_one(row: Any, sequence: Any, epoch: Any) -> None:
    layout.seal_row(row, sequence, epoch)


def address(rows: Rows) -> int:
    return int(rows.ctypes.data)


def random_rows(seed: int, count: int) -> Rows:
    content = np.random.default_rng(seed).integers(0, 256, count * ROW_BYTES, np.uint8)
    return content.view(TICK)


def test_offsets_are_those_of_the_dtype() -> None:
    assert layout.ROW_BYTES == ROW_BYTES == 64
    for name in TICK.names or ():
        assert getattr(layout, name.upper()) == TICK.fields[name][1]  # type: ignore[index]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 2**63 - 100), st.integers(1, 2**32 - 1))
def test_kernel_and_numpy_agree(seed: int, count: int, sequence: int, epoch: int) -> None:
    rows = random_rows(seed, count)
    expected = checksums(rows, sequence, epoch)
    for index in range(count):
        seal_one(address(rows) + ROW_BYTES * index, sequence + index, epoch)
    assert rows["checksum"].tolist() == expected.tolist()
    assert layout.count_sealed(address(rows), count, sequence, epoch) == count
    assert count_intact(rows, sequence, epoch) == count


@pytest.mark.parametrize("bit", range(ROW_BYTES * 8))
def test_a_flipped_bit_is_noticed(bit: int) -> None:
    rows = random_rows(5, 3)
    seal(rows, 10, 99)
    rows[1:2].view(np.uint8)[bit // 8] ^= 1 << bit % 8
    assert layout.count_sealed(address(rows), 3, 10, 99) == 1
    assert count_intact(rows, 10, 99) == 1


@pytest.mark.parametrize(
    ("sequence", "epoch"), [(11, 99), (9, 99), (10 + 2**32, 99), (10, 98), (10, 100), (99, 10)]
)
def test_a_record_in_the_wrong_place_is_noticed(sequence: int, epoch: int) -> None:
    rows = random_rows(6, 4)
    seal(rows, 10, 99)
    assert layout.count_sealed(address(rows), 4, sequence, epoch) == 0
    assert count_intact(rows, sequence, epoch) == 0


def test_none_are_intact_of_none() -> None:
    assert layout.count_sealed(0, 0, 1, 1) == 0


def test_bytes_that_were_never_written_are_no_record() -> None:
    """A sparse or preallocated file reads as zeros."""
    rows = np.zeros(1, TICK)
    for sequence in range(1, 5_000):
        assert count_intact(rows, sequence, 77) == 0
