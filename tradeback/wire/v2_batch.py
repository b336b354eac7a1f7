"""Rows of the tape as version 2 frames for whoever wants everything: what is put into streams and queues.

The kernel of the feed (`wire.v2_kernel`) with one group that has all trades, quotes and gaps. Other kinds of
records (aggregates, seeds) are the engine's own and in no frame.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tradeback.model.record import Rows
from tradeback.wire import v2_layout as at
from tradeback.wire.frames import LENGTH_7_MAX

_ARENA_FIRST: Final = 128 * 1024
_LENGTH_BYTES: Final = 2


class BatchEncoder:
    """`attach` once, `learn` every symbol, then `frames`. One caller at a time."""

    def __init__(self) -> None:
        self._states: NDArray[np.int64] = np.zeros((at.SYMBOL_IDS, at.STATE_WORDS), np.int64)
        self._powers: NDArray[np.float64] = np.array([float(10**k) for k in range(at.DIGITS_MAX + 1)])
        self._heads: NDArray[np.int32] = np.zeros((at.SUBJECTS, 2), np.int32)
        self._heads[:: at.SYMBOL_IDS, 1] = 1  # every whole channel has one group: the pool's first
        self._pool: NDArray[np.int32] = np.zeros(1, np.int32)
        self._group: NDArray[np.int64] = np.zeros(at.GROUP_WORDS, np.int64)
        self._touched: NDArray[np.int64] = np.zeros(at.TOUCHED_WORDS, np.int64)
        self._context: NDArray[np.int64] = np.zeros(at.CONTEXT_WORDS, np.int64)
        self._context_address = int(self._context.ctypes.data)
        for word, array in (
            (at.STATES, self._states),
            (at.POWERS, self._powers),
            (at.HEADS, self._heads),
            (at.POOL, self._pool),
            (at.GROUPS, self._group),
            (at.TOUCHED, self._touched),
        ):
            self._context[word] = array.ctypes.data
        self._grow(_ARENA_FIRST)
        self._encode: Callable[[int, int, int], int] | None = None

    def attach(self) -> None:
        """Take the kernel; imports numba, and compiles for seconds where there is no cache: in a thread."""
        if self._encode is not None:
            return
        from tradeback.kernel.crc32 import TABLES_ADDRESS
        from tradeback.kernel.jit import entry
        from tradeback.wire.v2_kernel import encode_groups_v2

        self._context[at.CRC_TABLES] = TABLES_ADDRESS
        self._encode = entry(encode_groups_v2)

    def learn(self, symbol_id: int, price_digits: int, quantity_digits: int) -> None:
        """Send this symbol's values as integers on its grid from now on; without one they cost more bytes."""
        scales = self._states[symbol_id].view(np.float64)
        scales[at.STATE_PRICE_SCALE] = 10.0**price_digits
        scales[at.STATE_QUANTITY_SCALE] = 10.0**quantity_digits

    def frames(self, rows: Rows, epoch: int, sequence: int) -> list[bytes]:
        """Frames (docs/wire.md), without a WebSocket header; `rows[0]` stands at `sequence`.

        None when no row is a trade, quote or gap.
        """
        assert self._encode is not None, "attach comes first"
        held = np.ascontiguousarray(rows)
        address, context, done = int(held.ctypes.data), self._context, 0
        context[at.EPOCH], context[at.SEQUENCE], context[at.PUBLISH_NS] = epoch, sequence, 0
        context[at.FRAME_FLAGS] = at.FRAME_REPLAY
        made: list[bytes] = []
        while done < len(held):
            consumed = self._encode(self._context_address, address + held.itemsize * done, len(held) - done)
            if not consumed:
                self._grow(2 * len(self._arena))
                continue
            done += consumed
            if context[at.TOUCHED_COUNT]:
                start = int(self._touched[at.TOUCHED_OFFSET])
                size = int(self._touched[at.TOUCHED_BYTES])
                made += _messages(self._arena[start : start + size].tobytes())
        return made

    def _grow(self, size: int) -> None:
        self._arena: NDArray[np.uint8] = np.zeros(size, np.uint8)
        self._nodes: NDArray[np.int64] = np.zeros(size // at.ENTRY_BYTES_MAX + 1, np.int64)
        self._context[at.OUT], self._context[at.OUT_BYTES] = self._arena.ctypes.data, size
        self._context[at.NODES] = self._nodes.ctypes.data


def _messages(data: bytes) -> Iterator[bytes]:
    """The payloads of unmasked WebSocket messages of less than 64 KiB each."""
    place = 0
    while place < len(data):
        size, start = data[place + 1], place + 2
        if size > LENGTH_7_MAX:
            size, start = int.from_bytes(data[place + 2 : place + 4], "big"), place + 4
        yield data[start : start + size]
        place = start + size


def pack(frames: Iterable[bytes]) -> bytes:
    """Frames in one piece: each behind its length (u16, little endian)."""
    return b"".join(len(frame).to_bytes(_LENGTH_BYTES, "little") + frame for frame in frames)


def unpack(data: bytes) -> list[bytes]:
    """What `pack` put together. ValueError when it is cut."""
    frames, place = [], 0
    while place < len(data):
        start = place + _LENGTH_BYTES
        place = start + int.from_bytes(data[place:start], "little")
        if start > len(data) or place > len(data):
            raise ValueError("a batch of frames is cut")
        frames.append(data[start:place])
    return frames
