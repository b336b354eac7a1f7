"""Encode once per interest, send to everybody who shares it: a station of the path (`path.path_kernel`).

The kernel sends; what a socket does not take comes back here and goes to its transport. A client is in
its group only while it takes everything at once. One that does not is LAGGING: it leaves the group and
costs nothing per batch; `feed.catchup` serves it when its socket drains.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tradeback.feed.interest import NOTHING, GroupTable, Interest, address_of
from tradeback.path import layout as path_at
from tradeback.path.path import Path
from tradeback.wire import v1_layout as at

GROUPS_FIRST: int = 64


class Subscriber(Protocol):
    """What the fan-out needs of a client."""

    interest: Interest
    group: "Group | None"
    place: int
    plain: bool
    fd: int
    lagging: bool
    write: Callable[[bytes], None]


class Group:
    """The live clients of one interest. `fds` (int32) runs parallel to `plain`; `line` tells the kernel."""

    __slots__ = ("fds", "index", "line", "others", "plain")

    def __init__(self, index: int, line: Any) -> None:
        self.index = index
        self.plain: list[Subscriber] = []
        self.others: list[Subscriber] = []
        self.fds: NDArray[np.int32] = np.zeros(4, np.int32)
        self.line = line
        """int64[TABLE_WORDS]: this group's line of the station's table."""
        self._tell()

    @property
    def batches(self) -> int:
        """How many times something was sent to all of them."""
        return int(self.line[path_at.TABLE_BATCHES])

    def _tell(self) -> None:
        self.line[path_at.TABLE_FDS] = address_of(self.fds)
        self.line[path_at.TABLE_PLAIN] = len(self.plain)
        self.line[path_at.TABLE_OTHERS] = len(self.others)

    def add(self, client: Subscriber) -> None:
        """Deliver to this client from the next batch on."""
        listed = self.plain if client.plain else self.others
        client.place = len(listed)
        client.group = self
        listed.append(client)
        if client.plain:
            if client.place == len(self.fds):
                self.fds = np.concatenate((self.fds, np.zeros_like(self.fds)))
            self.fds[client.place] = client.fd
        self._tell()

    def remove(self, client: Subscriber) -> None:
        """Deliver to this client no more: the last one takes its place."""
        listed = self.plain if client.plain else self.others
        last = listed.pop()
        if last is not client:
            listed[client.place] = last
            last.place = client.place
            if client.plain:
                self.fds[client.place] = last.fd
        client.group = None
        self._tell()


class FanOut:
    """Groups of clients of one version of the feed, and what the path's kernel needs to serve them."""

    def __init__(self, path: Path, interests: GroupTable, version: int) -> None:
        self.interests = interests
        self._version = version
        self._path = path
        self._groups: dict[int, Group] = {}
        self._table: NDArray[np.int64] = np.zeros((GROUPS_FIRST, path_at.TABLE_WORDS), np.int64)
        self._words: NDArray[np.int64] | None = None
        """This station's words of the path; None until the kernels are attached."""
        self._position: int | None = None
        """Up to where the clients have been served, while Python looks after some of them."""
        self._stalled: list[Subscriber] = []
        self._plain = 0

    @property
    def position(self) -> int:
        """Sequence up to which (exclusive) everything was handed to the live clients."""
        return self._path.tape.next_sequence if self._position is None else self._position

    @property
    def groups(self) -> int:
        """Number of groups with live clients."""
        return len(self._groups)

    @property
    def attached(self) -> bool:
        """True when rows may flow."""
        return self._words is not None

    @property
    def encoded(self) -> int:
        """Frames encoded since the start."""
        return self._count(path_at.STATION_ENCODED)

    @property
    def frames(self) -> int:
        """Frames sent, all clients together."""
        return self._count(path_at.STATION_FRAMES)

    @property
    def bytes(self) -> int:
        """Bytes sent, all clients together."""
        return self._count(path_at.STATION_BYTES)

    def _count(self, word: int) -> int:
        return 0 if self._words is None else int(self._words[word])

    def attach(self, encode_address: int) -> None:
        """Take the encode kernel, which a thread should have imported before. Loop thread."""
        from tradeback.kernel.crc32 import TABLES_ADDRESS

        self.interests.context[at.CRC_TABLES] = TABLES_ADDRESS
        self._words = self._path.add_station(self, encode_address, self._version)
        self._words[path_at.STATION_CONTEXT] = self.interests.context_address
        self._tell()

    def members(self) -> Iterator[Group]:
        """All groups with live clients."""
        return iter(self._groups.values())

    def enter(self, client: Subscriber) -> None:
        """Deliver to a client that is not in a group what its interest names, from `position` on."""
        if client.interest == NOTHING:
            return
        index = self.interests.join(client.interest)
        group = self._groups.get(index)
        if group is None:
            if index >= len(self._table):
                self._grow_table(index)
            self._table[index] = 0
            group = self._groups[index] = Group(index, self._table[index])
        group.add(client)
        self._plain += client.plain
        self._path.make_room(self._plain)
        self._tell()

    def leave(self, client: Subscriber) -> None:
        """Deliver to this client no more. Does nothing when it is in no group."""
        group = client.group
        if group is None:
            return
        group.remove(client)
        self._plain -= client.plain
        if self.interests.leave(group.index):
            del self._groups[group.index]
            self._tell()

    def stalled(self, client: Subscriber) -> None:
        """This client's socket is full: it leaves its group, once the batch at hand is through."""
        if self._position is not None:
            self._stalled.append(client)
        else:
            self.leave(client)

    # The path's side.

    def grow(self) -> None:
        """A larger arena for encoded bytes."""
        self.interests.grow_arena(2 * len(self.interests.arena))

    def left_over(self, rests: NDArray[np.int64], position: int) -> None:
        """Give to transports what sockets did not take, and everything to clients without a plain socket.

        Whatever the reason, a transport tries again and knows what to do: keep the rest and say
        pause_writing, or close.
        """
        self._position = position
        try:
            self._write_rests(rests)
        finally:
            self._position = None
        for client in self._stalled:
            self.leave(client)
        self._stalled.clear()

    def _write_rests(self, rests: NDArray[np.int64]) -> None:
        interests = self.interests
        touched = interests.touched[: int(interests.context[at.TOUCHED_COUNT])]
        places = {
            int(line[at.TOUCHED_GROUP]): (int(line[at.TOUCHED_OFFSET]), int(line[at.TOUCHED_BYTES]))
            for line in touched
        }
        arena = interests.arena.data
        # A write may end a client and with it its group: what is to be written is listed before.
        writes = []
        for index, place, sent in rests.tolist():
            offset, size = places[index]
            rest = bytes(arena[offset + max(0, sent) : offset + size])
            writes.append((self._groups[index].plain[place], rest))
        for index, (offset, size) in places.items():
            others = self._groups[index].others
            if others:
                data = bytes(arena[offset : offset + size])
                writes.extend((client, data) for client in others)
        for client, data in writes:
            client.write(data)

    def _grow_table(self, index: int) -> None:
        table = np.zeros((2 * (index + 1), path_at.TABLE_WORDS), np.int64)
        table[: len(self._table)] = self._table
        self._table = table
        for group in self._groups.values():
            group.line = table[group.index]
        self._tell()

    def _tell(self) -> None:
        if self._words is not None:
            self._words[path_at.STATION_TABLE] = address_of(self._table)
            self._words[path_at.STATION_GROUPS] = len(self._groups)
