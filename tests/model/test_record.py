"""The tape record: its shape on disk is fixed, and its checksum is bound to its place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.model import record
from tradeback.model.record import TICK, checksums, count_intact, empty_rows, seal

MASK = 2**64 - 1


def test_the_layout_on_disk() -> None:
    """Whatever changes here makes every tape unreadable."""
    assert TICK.itemsize == record.ROW_BYTES == 64
    offsets = {name: TICK.fields[name][1] for name in TICK.names or ()}  # type: ignore[index]
    assert offsets == {
        "exchange_us": 0, "recv_ns": 8, "id": 16, "price": 24, "quantity": 32, "ask": 40, "ask_quantity": 48,
        "symbol_id": 56, "kind": 58, "flags": 59, "checksum": 60,
    }  # fmt: skip
    kinds = (record.TRADE, record.QUOTE, record.AGG, record.GAP)
    assert kinds == (1, 2, 3, 4)
    assert (record.SEED_LEVELS, record.SEED_BAR, record.SEED_BAR_MORE) == (5, 6, 7)
    assert record.UNWATCHED == 8
    assert sorted(record.KIND_NAMES) == list(range(1, 9))


def test_flags_do_not_overlap() -> None:
    flags = [record.BUYER_MAKER, record.REPAIRED, record.STAND_IN, record.LATE, record.LINE_MASK]
    assert (
        sum(flags) == record.BUYER_MAKER | record.REPAIRED | record.STAND_IN | record.LATE | record.LINE_MASK
    )
    assert record.LINE_MASK >> record.LINE_SHIFT == record.LINE_LOCAL == 3
    assert sum(flags) < 256


def plain_checksum(row: bytes, sequence: int, epoch: int) -> int:
    """The definition, in integers."""
    mixed = ((sequence ^ epoch << 32) * record.MIX_SEED) & MASK
    for offset in range(0, 56, 8):
        mixed = ((mixed ^ int.from_bytes(row[offset : offset + 8], "little")) * record.MIX_MULTIPLIER) & MASK
        mixed ^= mixed >> record.MIX_SHIFT
    last = int.from_bytes(row[56:60], "little")
    return ((mixed ^ last) * record.MIX_MULTIPLIER & MASK) >> 32


@given(
    st.lists(st.binary(min_size=64, max_size=64), max_size=5),
    st.integers(1, 2**62),
    st.integers(1, 2**32 - 1),
)
def test_checksums(content: list[bytes], sequence: int, epoch: int) -> None:
    rows = np.frombuffer(bytearray(b"".join(content)), TICK)
    expected = [plain_checksum(row, sequence + index, epoch) for index, row in enumerate(content)]
    assert checksums(rows, sequence, epoch).tolist() == expected
    seal(rows, sequence, epoch)
    assert rows["checksum"].tolist() == expected
    assert count_intact(rows, sequence, epoch) == len(rows)


@pytest.mark.parametrize("bad", range(4))
def test_intact_up_to_the_first_bad_one(bad: int) -> None:
    rows = empty_rows(4)
    rows["id"] = range(4)
    seal(rows, 1, 7)
    rows["price"][bad:] = 1.5
    assert count_intact(rows, 1, 7) == bad


def test_every_other_record_of_a_strided_view() -> None:
    rows = empty_rows(6)
    rows["id"] = range(6)
    assert checksums(rows[::2], 1, 7).tolist() == checksums(rows[::2].copy(), 1, 7).tolist()
