"""Records from the tape for one client, until it has caught up and is live: resume, and slow readers of v2.

A replay reads behind its own cursor, from memory or from disk, encodes for its client alone, and waits
whenever the client's socket is full. When it has reached the tape's head it puts the client into its group
within one turn of the loop, so that there is neither a hole nor a double. All replays together take a
quarter of the loop's time at the most, and SLOTS_MAX of them are at work at once, so that each is faster than
the tape grows; others wait for theirs. One whose client does not read gives its slot away.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import numpy as np

from tradeback.feed.client import Client
from tradeback.feed.interest import Interest
from tradeback.feed.subjects import quotes_left_out
from tradeback.feed.v2_table import V2Scratch, V2Table
from tradeback.model.errors import TapeError
from tradeback.model.record import Rows
from tradeback.path.path import HotTape
from tradeback.tape.cursor import Cursor, Source
from tradeback.wire import v2_layout as at

SLOTS_MAX = 8
ROWS_PER_STEP = 1_024
"""About 0.2 ms of encoding, and 25 KB that may wait for a client in its transport."""
ROWS_PER_CONFLATED_STEP = 2_048
"""The longer, the more quotes fall together."""
SHARE = 4
"""All replays together get one part in this many of the loop's time."""
PAUSE_S = 0.002
"""A pause worth making: timers are no finer than 1 ms."""
AHEAD_S = 10.0
"""So long a client that is ahead of this tape waits for it, then it is closed (1013)."""
AHEAD_POLL_S = 0.005
SLOT_WAIT_S = 0.05
"""So long a client whose socket is full keeps its slot; one that reads at all drains sooner."""


class Tape(HotTape, Source, Protocol):
    """What a replay reads."""

    def in_memory(self, sequence: int) -> bool:
        """Whether records from `sequence` on are read without the disk, by the thread that writes."""


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
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """The client's socket takes bytes again, or the client leaves."""
        self._awake.set()

    async def changed(self) -> None:
        """Wait for the next `wake`."""
        self._awake.clear()
        await self._awake.wait()

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
        self.quotes_left_out = 0
        """Quotes that slow readers did not get, because a newer one of the symbol followed."""
        self._tape = tape
        self._live, self._lost = live, lost
        self._attached = asyncio.Event()
        self._slots = asyncio.Semaphore(SLOTS_MAX)
        self._turn = asyncio.Lock()
        self._owed_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Clients that are catching up now."""
        return len(self._tasks)

    def attach(self) -> None:
        """The encoder has its kernel: who came before is served now."""
        self._attached.set()

    def begin(self, replay: Replay) -> None:
        """Serve this client until it is live, or gone."""
        replay.client.replay = replay
        task = asyncio.create_task(self._run(replay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End all at once."""
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, replay: Replay) -> None:
        client = replay.client
        try:
            await self._attached.wait()
            while not (client.closing or await self._take_slot(replay)):
                while client.lagging and not client.closing:
                    await replay.changed()
        except (TapeError, OSError) as error:
            # Retention was faster, or the records are damaged: never a part of what was promised.
            self._lost(client, str(error))
        finally:
            client.replay = None
        if not client.closing:
            self._live(client)

    async def _take_slot(self, replay: Replay) -> bool:
        """Serve a client as long as it reads. True when it has caught up, in this very turn of the loop."""
        async with self._slots:
            table = self.encoder.table()
            index = table.join(replay.client.interest)
            try:
                return await self._serve(replay, table)
            finally:
                self.encoder.release(table, index)

    async def _serve(self, replay: Replay, table: V2Table) -> bool:
        client, cursor = replay.client, replay.cursor
        while not client.closing:
            if client.lagging:
                with suppress(TimeoutError):
                    async with asyncio.timeout(SLOT_WAIT_S):
                        await replay.changed()
                if client.lagging:
                    return False
                continue
            if cursor.sequence > self._tape.next_sequence:
                await self._come_here(replay)
                continue
            replay.step_over_sent()
            before = cursor.epoch, cursor.sequence
            rows = await self._next(replay)
            if client.closing:
                return False
            if len(rows):
                await self._step(replay, table, rows)
            elif cursor.sequence < self._tape.next_sequence:
                if before == (cursor.epoch, cursor.sequence):
                    raise TapeError(f"record {cursor.sequence} cannot be read")
                await asyncio.sleep(0)  # a new epoch has begun: the cursor has found its place in it
            elif not client.lagging:
                return True
        return False

    async def _come_here(self, replay: Replay) -> None:
        """Wait for the records up to the client's position, which it has from another node."""
        client, wanted = replay.client, replay.cursor.sequence
        end_s = time.monotonic() + AHEAD_S
        while self._tape.next_sequence < wanted and not client.closing:
            if time.monotonic() > end_s:
                raise TapeError(f"record {wanted - 1}, which you have, has not come here; try again")
            await asyncio.sleep(AHEAD_POLL_S)

    async def _next(self, replay: Replay) -> Rows:
        """The next records; those that are no longer in memory are read by a thread."""
        cursor, until = replay.cursor, replay.until
        wanted = ROWS_PER_CONFLATED_STEP if replay.conflate else ROWS_PER_STEP
        if until is not None:
            wanted = min(wanted, until - cursor.sequence)
        if self._tape.in_memory(cursor.sequence):
            return cursor.next(wanted)
        return await asyncio.to_thread(cursor.next, wanted)

    async def _step(self, replay: Replay, table: V2Table, rows: Rows) -> None:
        async with self._turn:
            begun_ns = time.perf_counter_ns()
            cursor = replay.cursor
            first = cursor.sequence - len(rows)
            data = self.encoder.frames(table, rows, cursor.epoch, first, conflate=replay.conflate)
            self.records += len(rows)
            if replay.conflate:
                self.quotes_left_out += quotes_left_out(replay.client.interest, rows)
            if data and not replay.client.closing:
                replay.client.write(data)
            self._owed_s += (SHARE - 1) * (time.perf_counter_ns() - begun_ns) / 1e9
            if self._owed_s >= PAUSE_S:
                pause_s, self._owed_s = self._owed_s, 0.0
                await asyncio.sleep(pause_s)
            elif cursor.sequence < self._tape.next_sequence:
                await asyncio.sleep(0)
