"""Records from the tape for one client, until it has caught up and is live: resume, and slow readers of v2.

A replay reads behind its own cursor, from memory or from disk, encodes for its client alone, and waits
whenever the client's socket is full. When it has reached the tape's head it puts the client into its group
within one turn of the loop, so that there is neither a hole nor a double. All replays together take a
quarter of the loop's time at the most, and SLOTS_MAX of them are at work at once; others wait for theirs.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from tradeback.feed.client import Client
from tradeback.feed.interest import Interest
from tradeback.feed.v2_table import V2Scratch, V2Table
from tradeback.model.errors import TapeError
from tradeback.model.record import Rows
from tradeback.path.path import HotTape
from tradeback.tape.cursor import Cursor, Source
from tradeback.wire import v2_layout as at

SLOTS_MAX = 8
ROWS_PER_STEP = 4_096
"""About half a millisecond of encoding."""
SHARE = 4
"""All replays together get one part in this many of the loop's time."""


class Tape(HotTape, Source, Protocol):
    """What a replay reads."""


class Encoder:
    """The version 2 kernel over rows that are not the live ones. One at a time, on the loop thread."""

    def __init__(self, scratch: V2Scratch) -> None:
        self._scratch = scratch
        self._encode: Callable[[int, int, int], int] | None = None
        self._free: list[V2Table] = []
        self._crc_tables = 0

    def attach(self) -> None:
        """Take the kernel."""
        from tradeback.kernel.crc32 import TABLES_ADDRESS
        from tradeback.kernel.jit import entry
        from tradeback.wire.v2_kernel import encode_groups_v2

        self._encode = entry(encode_groups_v2)
        self._crc_tables = TABLES_ADDRESS

    def table(self) -> V2Table:
        """A table without groups; give it back by `release`."""
        made = self._free.pop() if self._free else V2Table(self._scratch)
        made.context[at.CRC_TABLES] = self._crc_tables
        return made

    def release(self, table: V2Table, index: int) -> None:
        """Take back a table that holds the one group `index`."""
        table.leave(index)
        if len(self._free) < SLOTS_MAX:
            self._free.append(table)

    def frames(
        self,
        table: V2Table,
        rows: Rows,
        epoch: int,
        sequence: int,
        *,
        frame_flags: int = at.FRAME_REPLAY,
        entry_flags: int = 0,
        conflate: bool = False,
    ) -> bytes:
        """All frames of the table's one group for `rows`, of which the first has `sequence`."""
        assert self._encode is not None, "attach comes first"
        held = np.ascontiguousarray(rows)
        address, context, done = int(held.ctypes.data), table.context, 0
        context[at.EPOCH], context[at.SEQUENCE], context[at.PUBLISH_NS] = epoch, sequence, 0
        context[at.FRAME_FLAGS], context[at.ENTRY_FLAGS] = frame_flags, entry_flags
        context[at.CONFLATE] = conflate
        parts = []
        while done < len(held):
            consumed = self._encode(table.context_address, address + held.itemsize * done, len(held) - done)
            if not consumed:
                table.grow_arena(2 * len(table.arena))
                continue
            done += consumed
            if context[at.TOUCHED_COUNT]:
                line = table.touched[0]
                start = int(line[at.TOUCHED_OFFSET])
                parts.append(table.arena[start : start + int(line[at.TOUCHED_BYTES])].tobytes())
        return b"".join(parts)

    def once(self, interest: Interest, rows: Rows, epoch: int, sequence: int, flags: int) -> bytes:
        """A snapshot or the like: frames of `rows` for whoever has this interest."""
        table = self.table()
        index = table.join(interest)
        try:
            entry_flags = at.SNAPSHOT if flags & at.FRAME_SNAPSHOT else 0
            return self.frames(table, rows, epoch, sequence, frame_flags=flags, entry_flags=entry_flags)
        finally:
            self.release(table, index)


class Replay:
    """One client's way to the head. `until`: what it had been sent live from there on when it asked."""

    def __init__(
        self, client: Client, cursor: Cursor, *, conflate: bool, until: int | None = None, go_on: int = 0
    ) -> None:
        self.client, self.cursor, self.conflate = client, cursor, conflate
        self.until, self.go_on = until, go_on
        self.awake = asyncio.Event()

    def step_over_sent(self) -> None:
        """What a client got live before it asked is not sent again."""
        if self.until is not None and self.cursor.sequence >= self.until:
            self.cursor.sequence, self.until = max(self.cursor.sequence, self.go_on), None


class Replays:
    """All replays of one feed. Loop thread only."""

    def __init__(
        self,
        tape: Tape,
        encoder: Encoder,
        live: Callable[[Client], None],
        lost: Callable[[Client, str], None],
    ) -> None:
        self.encoder = encoder
        self.records = 0
        """Records read for clients, whether they wanted them or not."""
        self._tape = tape
        self._live, self._lost = live, lost
        self._slots = asyncio.Semaphore(SLOTS_MAX)
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Clients that are catching up now."""
        return len(self._tasks)

    def begin(self, replay: Replay) -> None:
        """Serve this client until it is live, or gone."""
        replay.client.replay = replay
        task = asyncio.create_task(self._run(replay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End all at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, replay: Replay) -> None:
        client = replay.client
        try:
            async with self._slots:
                table = self.encoder.table()
                index = table.join(client.interest)
                try:
                    await self._serve(replay, table)
                finally:
                    self.encoder.release(table, index)
        except TapeError as error:
            # Retention was faster, or the records are damaged: never a part of what was promised.
            self._lost(client, str(error))
        finally:
            client.replay = None
        if not client.closing:
            self._live(client)

    async def _serve(self, replay: Replay, table: V2Table) -> None:
        client, cursor = replay.client, replay.cursor
        while not client.closing:
            if client.lagging:
                replay.awake.clear()
                await replay.awake.wait()
                continue
            replay.step_over_sent()
            first = cursor.sequence
            rows = await self._next(cursor, replay.until)
            if client.closing:
                return
            if len(rows):
                await self._step(replay, table, rows, first)
            elif cursor.sequence < self._tape.next_sequence:
                await asyncio.sleep(0)  # a new epoch has begun: the cursor has found its place in it
            elif not client.lagging:
                return

    async def _next(self, cursor: Cursor, until: int | None) -> Rows:
        """The next records; those that are no longer in memory are read by a thread."""
        wanted = ROWS_PER_STEP if until is None else min(ROWS_PER_STEP, until - cursor.sequence)
        if cursor.sequence > self._tape.next_sequence - self._tape.hot_rows // 2:
            return cursor.next(wanted)
        return await asyncio.to_thread(cursor.next, wanted)

    async def _step(self, replay: Replay, table: V2Table, rows: Rows, first: int) -> None:
        async with self._turn:
            begun_ns = time.perf_counter_ns()
            cursor = replay.cursor
            data = self.encoder.frames(table, rows, cursor.epoch, first, conflate=replay.conflate)
            self.records += len(rows)
            if data and not replay.client.closing:
                replay.client.write(data)
            took_s = (time.perf_counter_ns() - begun_ns) / 1e9
            if cursor.sequence < self._tape.next_sequence:
                await asyncio.sleep((SHARE - 1) * took_s)
