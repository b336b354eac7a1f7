"""Interest groups: clients that want the same symbols share one encoded frame.

A group's key is the frozenset of its symbol ids, or EVERYTHING. Groups are counted by reference and
their indexes are used again, so the kernel's tables stay as large as the greatest number of groups
that ever lived at once. Pure: numpy tables and their addresses, no numba, no socket.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tradeback.wire import v1_layout as at

Interest = frozenset[int]

EVERYTHING: Final[Interest] = frozenset({0})
"""Every symbol, also those to come. 0 is no symbol, so no set of ids means this by accident."""
NOTHING: Final[Interest] = frozenset()

SYMBOL_IDS: Final = 65_536
GROUPS_FIRST: Final = 64
POOL_FIRST: Final = 1_024
ARENA_BYTES_FIRST: Final = 256 * 1024
LIST_FIRST: Final = 4
"""Room of a symbol's first list of groups."""


def address_of(array: NDArray[np.generic]) -> int:
    """Address of an array's first byte; take it once, it costs a microsecond."""
    return int(array.ctypes.data)


class GroupTable:
    """Groups by key, and the tables in which an encode kernel looks them up.

    `context` (int64[words]) is what the kernel gets; the layout of its first part is `wire.v1_layout`. A key
    is a set of subjects, of which there are `subjects`: for version 1 the symbol ids.
    """

    def __init__(self, subjects: int, words: int, group_words: int) -> None:
        self.context: NDArray[np.int64] = np.zeros(words, np.int64)
        self.context_address = address_of(self.context)
        self._group_words = group_words
        self._heads: NDArray[np.int32] = np.zeros((subjects, 2), np.int32)
        self._capacities: dict[int, int] = {}
        self._pool: NDArray[np.int32] = np.zeros(POOL_FIRST, np.int32)
        self._pool_used = 0
        self._by_key: dict[Interest, int] = {}
        self._keys: list[Interest | None] = []
        self._references: list[int] = []
        self._free: list[int] = []
        self._grow_groups(GROUPS_FIRST)
        self.context[at.HEADS] = address_of(self._heads)
        self.context[at.POOL] = address_of(self._pool)

    def __len__(self) -> int:
        """Number of living groups."""
        return len(self._by_key)

    def key_of(self, index: int) -> Interest:
        """The key of a living group. KeyError when there is none."""
        key = self._keys[index] if index < len(self._keys) else None
        if key is None:
            raise KeyError(f"no group has index {index}")
        return key

    def groups_of(self, subject: int) -> list[int]:
        """Indexes of the groups that name this subject (0: that want every symbol), in no order."""
        start, count = (int(word) for word in self._heads[subject])
        return [int(index) for index in self._pool[start : start + count]]

    def join(self, key: Interest) -> int:
        """The index of the group with this key, made when there is none; one reference more."""
        index = self._by_key.get(key)
        if index is None:
            index = self._make(key)
        self._references[index] += 1
        return index

    def leave(self, index: int) -> bool:
        """One reference less. True when that was the last: the group is gone, its index free."""
        key = self.key_of(index)
        self._references[index] -= 1
        if self._references[index]:
            return False
        for symbol_id in key:
            self._unlink(symbol_id, index)
        del self._by_key[key]
        self._keys[index] = None
        self._free.append(index)
        return True

    def grow_arena(self, size: int) -> None:
        """Replace the arena for encoded bytes by one of `size` bytes."""
        self.arena: NDArray[np.uint8] = np.zeros(size, np.uint8)
        self.context[at.OUT] = address_of(self.arena)
        self.context[at.OUT_BYTES] = size

    def _make(self, key: Interest) -> int:
        if not self._free:
            self._grow_groups(2 * len(self._keys))
        index = self._free.pop()
        self._by_key[key] = index
        self._keys[index] = key
        for symbol_id in key:
            self._link(symbol_id, index)
        return index

    def _grow_groups(self, count: int) -> None:
        """Room for `count` groups. The kernel leaves its scratch all zero, so nothing is copied."""
        known = len(self._keys)
        self._keys.extend([None] * (count - known))
        self._references.extend([0] * (count - known))
        self._free.extend(range(count - 1, known - 1, -1))
        self._groups = np.zeros((count, self._group_words), np.int64)
        self.touched: NDArray[np.int64] = np.zeros((count, at.TOUCHED_WORDS), np.int64)
        self.context[at.GROUPS] = address_of(self._groups)
        self.context[at.TOUCHED] = address_of(self.touched)

    def _link(self, symbol_id: int, index: int) -> None:
        start, count = (int(word) for word in self._heads[symbol_id])
        if count == self._capacities.get(symbol_id, 0):
            start = self._move_list(symbol_id, start, count)
        self._pool[start + count] = index
        self._heads[symbol_id, 1] = count + 1

    def _unlink(self, symbol_id: int, index: int) -> None:
        start, count = (int(word) for word in self._heads[symbol_id])
        members = self._pool[start : start + count]
        members[np.flatnonzero(members == index)[0]] = members[count - 1]
        self._heads[symbol_id, 1] = count - 1

    def _move_list(self, symbol_id: int, start: int, count: int) -> int:
        """Give a full list twice its room at the pool's end. Returns its new start."""
        capacity = max(LIST_FIRST, 2 * count)
        if self._pool_used + capacity > len(self._pool):
            self._rebuild_pool(symbol_id, capacity)
            start = int(self._heads[symbol_id, 0])
        else:
            place = self._pool_used
            self._pool[place : place + count] = self._pool[start : start + count]
            self._place_list(symbol_id, place, capacity)
            start = place
        return start

    def _rebuild_pool(self, symbol_id: int, capacity: int) -> None:
        """A new pool without the holes that moved lists left, with room to spare."""
        self._capacities[symbol_id] = capacity
        needed = sum(self._capacities.values())
        old, old_heads = self._pool, self._heads.copy()
        self._pool = np.zeros(max(POOL_FIRST, 2 * needed), np.int32)
        self._pool_used = 0
        for listed, room in self._capacities.items():
            start, count = (int(word) for word in old_heads[listed])
            place = self._pool_used
            self._pool[place : place + count] = old[start : start + count]
            self._place_list(listed, place, room)
        self.context[at.POOL] = address_of(self._pool)

    def _place_list(self, symbol_id: int, place: int, capacity: int) -> None:
        self._heads[symbol_id, 0] = place
        self._capacities[symbol_id] = capacity
        self._pool_used = place + capacity


class InterestTable(GroupTable):
    """Version 1: keys are sets of symbol ids. Also notes every symbol's last price and counts its trades."""

    def __init__(self) -> None:
        super().__init__(SYMBOL_IDS, at.CONTEXT_WORDS, at.GROUP_WORDS)
        self.last_price: NDArray[np.float64] = np.zeros(SYMBOL_IDS, np.float64)
        self.trades_seen: NDArray[np.int64] = np.zeros(SYMBOL_IDS, np.int64)
        self.context[at.LAST_PRICE] = address_of(self.last_price)
        self.context[at.TRADES_SEEN] = address_of(self.trades_seen)
        self.grow_arena(ARENA_BYTES_FIRST)


def union(first: Interest, more: Iterable[int]) -> Interest:
    """`first` and `more` together; EVERYTHING swallows all."""
    if first == EVERYTHING:
        return EVERYTHING
    joined = first | frozenset(more)
    return EVERYTHING if 0 in joined else joined


def without(first: Interest, gone: Interest, known: Iterable[int]) -> Interest:
    """`first` less `gone`. Taking a part from EVERYTHING leaves the rest of the `known` symbols."""
    if gone == EVERYTHING:
        return NOTHING
    if first == EVERYTHING:
        return frozenset(known) - gone if gone else EVERYTHING
    return first - gone
