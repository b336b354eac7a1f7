"""Symbol look-up by hash over the name's bytes: the table in numpy, the probe in numba.

A slot has 32 bytes: the name in three zero-padded 8-byte words, then the symbol id (0: empty) with the
name's length above bit 32, so that a name followed by NUL bytes is another one. Names are UTF-8 and may
be non-ASCII; the bytes decide.
"""

from typing import Any

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from tradeback.ingest.scan import quote_index
from tradeback.kernel.jit import helper
from tradeback.kernel.memory import as_signed, load_i64, load_u64
from tradeback.model.symbols import SYMBOL_BYTES_MAX, SYMBOL_IDS_MAX

_MASK_64 = (1 << 64) - 1
_MIX = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)
_MIX_0, _MIX_1, _MIX_2 = (uint64(word) for word in _MIX)
_ONE, _EIGHT, _HALF = uint64(1), uint64(8), uint64(32)

UNKNOWN = -1
TOO_LONG = -2


def name_words(name: bytes) -> tuple[int, int, int]:
    """The three words under which a name is stored.

    ValueError when it is too long or empty, or would need escapes in JSON: frames are compared by bytes.
    """
    if not 1 <= len(name) < SYMBOL_BYTES_MAX:
        raise ValueError(f"symbol of {len(name)} bytes: 1 to {SYMBOL_BYTES_MAX - 1} fit the symbol table")
    if any(byte < 32 or byte in b'"\\' for byte in name):
        raise ValueError(f"symbol {name!r} has characters that JSON escapes")
    first, second, third = (int.from_bytes(name[i : i + 8].ljust(8, b"\0"), "little") for i in (0, 8, 16))
    return first, second, third


def name_hash(words: tuple[int, int, int]) -> int:
    """The hash of a name's words, as the kernel computes it."""
    mixed = 0
    for word, factor in zip(words, _MIX, strict=True):
        mixed ^= (word * factor) & _MASK_64
    return mixed ^ (mixed >> 32)


class NameTable:
    """Open addressing with linear probing, at most one quarter full."""

    def __init__(self, capacity: int = 256) -> None:
        self._ids: dict[bytes, int] = {}
        self._slots: NDArray[np.uint64] = np.zeros((capacity, 4), np.uint64)

    @property
    def address(self) -> int:
        """Address of the slots; changes when the table grows."""
        return int(self._slots.ctypes.data)

    @property
    def mask(self) -> int:
        """Number of slots - 1."""
        return len(self._slots) - 1

    def add(self, name: str, symbol_id: int) -> None:
        """Add a name; ValueError when it does not fit, means another id already, or the id is none."""
        if not 1 <= symbol_id <= SYMBOL_IDS_MAX:
            raise ValueError(f"symbol id {symbol_id} of {name} is outside 1..{SYMBOL_IDS_MAX}")
        encoded = name.encode()
        words = name_words(encoded)
        held = self._ids.setdefault(encoded, symbol_id)
        if held != symbol_id:
            raise ValueError(f"{name} already has id {held}")
        if len(self._ids) * 4 > len(self._slots):
            self._slots = np.zeros((2 * len(self._slots), 4), np.uint64)
            for other, other_id in self._ids.items():
                self._place(name_words(other), len(other), other_id)
            return
        self._place(words, len(encoded), symbol_id)

    def _place(self, words: tuple[int, int, int], length: int, symbol_id: int) -> None:
        slot = name_hash(words) & self.mask
        while self._slots[slot, 3] and tuple(self._slots[slot, :3].tolist()) != words:
            slot = (slot + 1) & self.mask
        self._slots[slot] = (*words, length << 32 | symbol_id)


@helper
def find_name(address: Any, slots: Any, mask: Any) -> Any:
    """Look up the name that starts at `address` and ends before a quote.

    Returns (symbol id, UNKNOWN or TOO_LONG; address of the closing quote).
    """
    first = load_u64(address)
    second = uint64(0)
    third = uint64(0)
    index = quote_index(first)
    length = index
    if index < 8:
        first &= (_ONE << uint64(8 * index)) - _ONE
    else:
        second = load_u64(address + 8)
        index = quote_index(second)
        length = 8 + index
        if index < 8:
            second &= (_ONE << uint64(8 * index)) - _ONE
        else:
            third = load_u64(address + 16)
            index = quote_index(third)
            if index >= 8:
                return TOO_LONG, address
            length = 16 + index
            third &= (_ONE << uint64(8 * index)) - _ONE
    mixed = (first * _MIX_0) ^ (second * _MIX_1) ^ (third * _MIX_2)
    slot = as_signed(mixed ^ (mixed >> _HALF)) & mask
    while True:
        entry = slots + 32 * slot
        held = load_i64(entry + 24)
        if held == 0:
            return UNKNOWN, address + length
        if load_u64(entry) == first and load_u64(entry + 8) == second and load_u64(entry + 16) == third:
            if held >> 32 != length:
                return UNKNOWN, address + length
            return held & 0xFFFF, address + length
        slot = (slot + 1) & mask
