"""Records of the tape's file into a ring in memory, each verified: for readers in other processes."""

from typing import Any

from numba import types

from tradeback.kernel.jit import kernel
from tradeback.kernel.memory import load_32
from tradeback.kernel.row import CHECKSUM, ROW_BYTES, row_checksum

_pread: Any = types.ExternalFunction("pread", types.int64(types.int32, types.int64, types.int64, types.int64))


@kernel("int64(int64,int64,int64,int64,int64,int64)", keep_lock=True)
def follow(descriptor: Any, offset: Any, row: Any, count: Any, first: Any, epoch: Any) -> Any:
    """Read up to `count` records from byte `offset` of a file to address `row`.

    Returns how many are whole and intact, up to the first that is not; `first` is the sequence of the
    first of them. -1 when the file cannot be read.
    """
    got = _pread(descriptor, row, ROW_BYTES * count, offset)
    if got < 0:
        return -1
    for index in range(got // ROW_BYTES):
        place = row + ROW_BYTES * index
        if load_32(place + CHECKSUM) != row_checksum(place, first + index, epoch):
            return index
    return got // ROW_BYTES
