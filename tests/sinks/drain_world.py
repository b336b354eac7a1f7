"""A tape in memory and a store in memory that fails as a test tells it."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tradeback.model.record import LATE, QUOTE, TRADE, Rows, empty_rows, seal
from tradeback.sinks.drain import Drain
from tradeback.sinks.drain_ports import Batch, BatchRefused, DrainConfig, Rejected, Written
from tradeback.stores.ports import Position
from tradeback.tape.reader import RecordsGone

LOG = logging.getLogger("tests.drain")


class SystemTime:
    """The machine's clocks."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def steady_ns(self) -> int:
        return time.monotonic_ns()


class MemoryTape:
    """Records with their epochs; the oldest may go, an epoch may lose its end."""

    def __init__(self) -> None:
        self.rows = empty_rows(0)
        self.history: list[tuple[int, int]] = [(7, 1)]
        self.oldest_sequence = 1

    @property
    def next_sequence(self) -> int:
        return len(self.rows) + 1

    @property
    def epoch(self) -> int:
        return self.history[-1][0]

    def append(self, rows: Rows) -> None:
        rows = rows.copy()
        seal(rows, self.next_sequence, self.epoch)
        self.rows = np.concatenate((self.rows, rows))

    def lose_tail(self, count: int) -> None:
        """What a crash of the machine does: the newest records are gone, a new epoch begins."""
        self.rows = self.rows[: len(self.rows) - count]
        self.history.append((self.epoch + 1, self.next_sequence))

    def forget(self, count: int) -> None:
        """What retention does."""
        self.oldest_sequence += count

    def read_with_epoch(self, sequence: int, rows_max: int) -> tuple[int, Rows]:
        if sequence < self.oldest_sequence:
            raise RecordsGone("gone", self.oldest_sequence)
        place = max(i for i, (_, first) in enumerate(self.history) if first <= max(1, sequence))
        end = self.history[place + 1][1] if place + 1 < len(self.history) else self.next_sequence
        return self.history[place][0], self.rows[sequence - 1 : min(end - 1, sequence - 1 + rows_max)].copy()

    def resume(self, epoch: int, sequence: int) -> tuple[int, int]:
        for place, (known, _) in enumerate(self.history):
            if known == epoch and place + 1 < len(self.history) and sequence >= self.history[place + 1][1]:
                return self.history[place + 1]
            if known == epoch:
                return epoch, sequence
        return [known for known, first in self.history if first <= sequence][-1], sequence


def trades(count: int, first_id: int = 1, symbol_id: int = 1, price: float = 1.0) -> Rows:
    """`count` trades of one symbol with rising ids."""
    rows = empty_rows(count)
    rows["id"] = np.arange(first_id, first_id + count)
    rows["exchange_us"] = 1_000_000 + rows["id"] * 7
    rows["recv_ns"] = time.time_ns()
    rows["price"], rows["quantity"] = price, 1.0
    rows["symbol_id"], rows["kind"] = symbol_id, TRADE
    return rows


def quotes(count: int, first_id: int = 1, symbol_id: int = 1) -> Rows:
    """`count` quotes of one symbol."""
    rows = trades(count, first_id, symbol_id)
    rows["kind"] = QUOTE
    return rows


def late(rows: Rows) -> Rows:
    """The same records, flagged as late."""
    rows["flags"] |= LATE
    return rows


class Memory:
    """The store itself: it outlives its targets. Keys are (epoch, sequence); a second write is no change."""

    def __init__(self) -> None:
        self.held: dict[tuple[int, int], int] = {}
        self.position: Position | None = None
        self.bad: set[int] = set()
        """Ids of rows that are refused."""


class MemoryTarget:
    """`hit` is called before and after every write and save; it may raise, or wait."""

    def __init__(
        self, memory: Memory, hit: Callable[[str], object] | None = None, names_bad: bool = False
    ) -> None:
        self.memory, self.hit, self.names_bad = memory, hit, names_bad
        self.calls: list[tuple[str, int, int]] = []
        self.running = self.running_most = self.opens = self.closes = 0
        self.gate: asyncio.Event | None = None
        """While set to an event that is not set, writes hang."""
        self.batches: list[Batch] = []

    def _hit(self, where: str) -> None:
        if self.hit is not None:
            self.hit(where)

    async def open(self) -> Position | None:
        self.opens += 1
        self._hit("open")
        return self.memory.position

    async def write(self, batch: Batch) -> Written:
        self.running += 1
        self.running_most = max(self.running, self.running_most)
        try:
            return await self._write(batch)
        finally:
            self.running -= 1

    async def _write(self, batch: Batch) -> Written:
        self.calls.append(("write", batch.first_sequence, len(batch.rows)))
        if self.gate is not None:
            await self.gate.wait()
        self._hit("before")
        await asyncio.sleep(0)
        bad = [index for index, id_ in enumerate(batch.rows["id"].tolist()) if id_ in self.memory.bad]
        if bad and not self.names_bad:
            raise BatchRefused(f"row {batch.rows['id'][bad[0]]} is bad")
        for index, id_ in enumerate(batch.rows["id"].tolist()):
            if index not in bad:
                self.memory.held[batch.epoch, batch.first_sequence + index] = id_
        self.batches.append(batch)
        self._hit("after")
        return Written(tuple(Rejected(index, "bad") for index in bad))

    async def save(self, position: Position) -> None:
        self._hit("save")
        self.memory.position = position

    async def close(self) -> None:
        self.closes += 1
        self._hit("close")


QUICK = DrainConfig(
    batch_rows=10,
    batch_age_s=0.001,
    write_timeout_s=0.05,
    backoff_first_s=0.001,
    backoff_max_s=0.005,
    save_interval_s=0.0,
    catch_up_rows_s=1e9,
)


def drain_of(tape: MemoryTape, target: MemoryTarget, folder: Path, config: DrainConfig = QUICK) -> Drain:
    """A drain of the tape into the target, not started."""
    aside = folder / "aside" / "memory.jsonl"
    return Drain("memory", tape, target, config, SystemTime(), LOG, aside, random.random)


async def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for a condition; TimeoutError when it does not come."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.001)
