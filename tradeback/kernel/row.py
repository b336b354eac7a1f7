"""Byte offsets of a tape record and its checksum, for kernels. `model.record` is the same in numpy."""

from typing import Any

from numba import uint64

from tradeback.kernel.jit import helper, kernel
from tradeback.kernel.memory import as_signed, as_unsigned, load_32, load_u64, store_32
from tradeback.model.record import MIX_MULTIPLIER, MIX_SEED, MIX_SHIFT

EXCHANGE_US, RECV_NS, ID, PRICE, QUANTITY, ASK, ASK_QUANTITY = 0, 8, 16, 24, 32, 40, 48
SYMBOL_ID, KIND, FLAGS, CHECKSUM = 56, 58, 59, 60
ROW_BYTES = 64

_SEED = uint64(MIX_SEED)
_MULTIPLIER = uint64(MIX_MULTIPLIER)
_SHIFT = uint64(MIX_SHIFT)


@helper
def row_checksum(row: Any, sequence: Any, epoch: Any) -> Any:
    """Checksum of the record at address `row` as it stands at `sequence` of `epoch`: 0 to 2^32 - 1."""
    mixed = (as_unsigned(sequence) ^ (as_unsigned(epoch) << uint64(32))) * _SEED
    for offset in (0, 8, 16, 24, 32, 40, 48):
        mixed = (mixed ^ load_u64(row + offset)) * _MULTIPLIER
        mixed ^= mixed >> _SHIFT
    mixed = (mixed ^ as_unsigned(load_32(row + SYMBOL_ID))) * _MULTIPLIER
    return as_signed(mixed >> uint64(32))


@helper
def seal_row(row: Any, sequence: Any, epoch: Any) -> None:
    """Write the record's checksum: the last thing that is done to a record."""
    store_32(row + CHECKSUM, row_checksum(row, sequence, epoch))


@kernel("int64(int64,int64,int64,int64)")
def count_sealed(rows: Any, count: Any, first_sequence: Any, epoch: Any) -> Any:
    """How many of `count` records from address `rows` on are intact, up to the first bad one."""
    for index in range(count):
        row = rows + ROW_BYTES * index
        if load_32(row + CHECKSUM) != row_checksum(row, first_sequence + index, epoch):
            return index
    return count
