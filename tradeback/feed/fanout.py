"""Encode once per interest, send to everybody who shares it. The feed's hot path.

A client is in its group only while it takes everything at once. One that does not is LAGGING: it
leaves the group and costs nothing per batch; `feed.catchup` serves it when its socket drains.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tradeback.feed.interest import NOTHING, Interest, InterestTable, address_of
from tradeback.model.limits import V1_ENTRIES_MAX
from tradeback.model.record import ROW_BYTES, Rows
from tradeback.wire import v1_layout as at
from tradeback.wire.v1 import ENTRY_BYTES, HEAD_BYTES

COMPILED_SEND_MIN: int = 8
"""Clients of one group from which the compiled send loop pays: its call costs what three writes do."""
FULL_FRAME_BYTES: int = 4 + HEAD_BYTES + ENTRY_BYTES * V1_ENTRIES_MAX


class HotTape(Protocol):
    """What the feed reads of the tape: its hot ring."""

    rows: Rows
    rows_address: int
    hot_rows: int
    next_sequence: int


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
    """The live clients of one interest. `fds` (int32) runs parallel to `plain`."""

    __slots__ = ("batches", "fds", "fds_address", "index", "others", "plain")

    def __init__(self, index: int) -> None:
        self.index = index
        self.batches = 0
        """How many times something was sent to all of them."""
        self.plain: list[Subscriber] = []
        self.others: list[Subscriber] = []
        self.fds: NDArray[np.int32] = np.zeros(4, np.int32)
        self.fds_address = address_of(self.fds)

    def add(self, client: Subscriber) -> None:
        """Deliver to this client from the next batch on."""
        listed = self.plain if client.plain else self.others
        client.place = len(listed)
        client.group = self
        listed.append(client)
        if client.plain:
            if client.place == len(self.fds):
                self.fds = np.concatenate((self.fds, np.zeros_like(self.fds)))
                self.fds_address = address_of(self.fds)
            self.fds[client.place] = client.fd

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


class FanOut:
    """Groups of clients, and the one method that serves them: `publish`."""

    def __init__(self, tape: HotTape) -> None:
        self.interests = InterestTable()
        self.position = tape.next_sequence
        """Sequence up to which (exclusive) everything was handed to the live clients."""
        self.frames = self.bytes = self.encoded = 0
        """Counters: frames and bytes sent, all clients together; frames encoded."""
        self._tape = tape
        self._mask = tape.hot_rows - 1
        self._groups: dict[int, Group] = {}
        self._sending = False
        self._stalled: list[Subscriber] = []
        self._encode: Callable[[int, int, int], int] | None = None
        self._send_all: Callable[[int, int, int, int, int], int] | None = None
        self._rest: NDArray[np.int64] = np.zeros((64, 2), np.int64)
        self._take_views()

    @property
    def groups(self) -> int:
        """Number of groups with live clients."""
        return len(self._groups)

    @property
    def attached(self) -> bool:
        """True when rows may flow."""
        return self._encode is not None

    def attach(self) -> None:
        """Take the kernels. A thread should have imported them before; this runs on the loop thread."""
        from tradeback.feed.send_kernel import send_all
        from tradeback.kernel.crc32 import TABLES_ADDRESS
        from tradeback.kernel.jit import entry
        from tradeback.wire.v1_kernel import encode_groups

        self.interests.context[at.CRC_TABLES] = TABLES_ADDRESS
        self.position = self._tape.next_sequence
        self._send_all = entry(send_all)
        self._encode = entry(encode_groups)

    def enter(self, client: Subscriber) -> None:
        """Deliver to a client that is not in a group what its interest names, from `position` on."""
        if client.interest == NOTHING:
            return
        index = self.interests.join(client.interest)
        group = self._groups.get(index)
        if group is None:
            group = self._groups[index] = Group(index)
            self._take_views()
        group.add(client)

    def leave(self, client: Subscriber) -> None:
        """Deliver to this client no more. Does nothing when it is in no group."""
        group = client.group
        if group is None:
            return
        group.remove(client)
        if self.interests.leave(group.index):
            del self._groups[group.index]

    def stalled(self, client: Subscriber) -> None:
        """This client's socket is full: it leaves its group, once the batch at hand is through."""
        if self._sending:
            self._stalled.append(client)
        else:
            self.leave(client)

    def publish(self, first_sequence: int, n: int) -> tuple[int, int]:
        """Serve `n` tape rows, contiguous in the ring, to every live client that wants them.

        Returns (trades among them, recv_ns of the first trade; 0 without one).
        """
        encode = self._encode
        if encode is None:
            raise RuntimeError("rows came before attach(): the kernels are not loaded")
        context = self.interests.context_address
        address = self._tape.rows_address + (first_sequence & self._mask) * ROW_BYTES
        done = trades = recv_ns = 0
        while done < n:
            consumed = encode(context, address + ROW_BYTES * done, n - done)
            if not consumed:
                self.interests.grow_arena(2 * len(self.interests.arena))
                self._take_views()
                continue
            done += consumed
            self.position = first_sequence + done
            results = self._results
            if results[at.TRADES]:
                trades += results[at.TRADES]
                recv_ns = recv_ns or results[at.RECV_NS]
            if results[at.TOUCHED_COUNT]:
                self._serve(results[at.TOUCHED_COUNT])
        return trades, recv_ns

    def _serve(self, count: int) -> None:
        """Send what the kernel left in the arena."""
        self._sending = True
        touched = self._touched
        self.encoded += self._results[at.FRAMES]
        try:
            for word in range(0, count * at.TOUCHED_WORDS, at.TOUCHED_WORDS):
                self._send(self._groups[touched[word]], touched[word + 1], touched[word + 2])
        finally:
            self._sending = False
        if self._stalled:
            for client in self._stalled:
                self.leave(client)
            self._stalled.clear()

    def _send(self, group: Group, offset: int, size: int) -> None:
        plain = group.plain
        count = len(plain) + len(group.others)
        frames = -(-size // FULL_FRAME_BYTES)
        group.batches += 1
        self.frames += frames * count
        self.bytes += size * count
        if len(plain) >= COMPILED_SEND_MIN:
            self._send_compiled(group, offset, size)
            plain = []
        if plain or group.others:
            data = bytes(self._arena[offset : offset + size])
            for client in plain:
                client.write(data)
            for client in group.others:
                client.write(data)

    def _send_compiled(self, group: Group, offset: int, size: int) -> None:
        count = len(group.plain)
        if count > len(self._rest):
            self._rest = np.zeros((2 * count, 2), np.int64)
        rest = self._rest
        send_all: Any = self._send_all
        failed = send_all(group.fds_address, count, self._arena_address + offset, size, address_of(rest))
        for line in range(failed):
            client = group.plain[int(rest[line, 0])]
            sent = max(0, int(rest[line, 1]))
            # Whatever the reason, the transport tries again and knows what to do: keep the rest and
            # say pause_writing, or close.
            client.write(bytes(self._arena[offset + sent : offset + size]))

    def _take_views(self) -> None:
        """Python reads single words of these tables; a memoryview does that twice as fast as numpy."""
        self._results: Any = self.interests.context.data
        self._touched: Any = self.interests.touched.reshape(-1).data
        self._arena: Any = self.interests.arena.data
        self._arena_address = address_of(self.interests.arena)
