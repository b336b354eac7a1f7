"""path/path_kernel: one call does what its steps do one by one, and a disk that refuses costs nothing."""

import asyncio
import os
import resource
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as Folder

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.exchange.harness import BTC, SYMBOLS, Desk, agg, desk, frame, quote, trade, until
from tests.wire.reading import entries_of
from tradeback.derive.row_kernel import apply_rows
from tradeback.derive.state import Derived
from tradeback.exchange.intake import Intake
from tradeback.feed.fanout import FanOut, Group
from tradeback.feed.interest import EVERYTHING, Interest, InterestTable
from tradeback.ingest import context as words
from tradeback.kernel.jit import address
from tradeback.model.config import TapeConfig
from tradeback.model.record import TRADE, Rows, empty_rows
from tradeback.tape.reader import TapeReader
from tradeback.tape.writer import Tape
from tradeback.wire.v1_kernel import encode_groups

RECV_NS = 1_781_000_001_000_000_000
PIECES = st.sampled_from(("trade", "quote", "agg", "ping", "again", "other"))


class Client:
    """A subscriber with a real socket."""

    def __init__(self, interest: Interest = EVERYTHING) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.interest, self.fd, self.plain = interest, self.near.fileno(), True
        self.group: Group | None = None
        self.place, self.lagging = 0, False
        self.written: list[bytes] = []
        self.write = self.written.append

    def received(self) -> bytes:
        self.far.setblocking(False)
        got = bytearray()
        try:
            while True:
                got += self.far.recv(1 << 16)
        except BlockingIOError:
            return bytes(got) + b"".join(self.written)

    def close(self) -> None:
        self.near.close()
        self.far.close()


def pour(intake: Intake, data: bytes) -> None:
    """What a socket reader does with a read, side frames left out."""
    held = np.frombuffer(data + bytes(64), np.uint8).copy()
    place, end = int(held.ctypes.data), int(held.ctypes.data) + len(data)
    while True:
        intake.pull(place, end, RECV_NS, 0)
        place = intake.view[words.POSITION]
        if not intake.view[words.SIDE_OPCODE] and (place >= end or not intake.full):
            return


def made_of(pieces: list[str]) -> bytes:
    stream = bytearray()
    for number, piece in enumerate(pieces, 1):
        stream += {
            "trade": trade(number),
            "quote": quote(number),
            "agg": agg(number, number, number, "1.0"),
            "ping": frame(b"p", 0x89),
            "again": trade(max(1, number - 1)),
            "other": trade(number, symbol="ETHUSDT"),
        }[piece]
    return bytes(stream)


@settings(deadline=None)
@given(reads=st.lists(st.lists(PIECES, min_size=1, max_size=40), min_size=1, max_size=5))
def test_one_call_does_what_its_steps_do(reads: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder, desk(Folder(folder), hot_rows=1 << 12) as world:
        path = world.intake.path
        fanout = FanOut(path, InterestTable(), 1)
        fanout.attach(address(encode_groups))
        everything, some = Client(), Client(frozenset({BTC.id}))
        derived, expected = Derived(), Derived()
        for state in (derived, expected):
            for symbol in SYMBOLS:
                state.add_symbol(symbol)
        path.derive(derived, address(apply_rows), derived.context_address)
        for client in (everything, some):
            fanout.enter(client)
        for pieces in reads:
            pour(world.intake, made_of(pieces))
        rows = world.rows
        world.check_tape()
        trades = rows[rows["kind"] == TRADE]
        wanted = [(int(row["symbol_id"]), float(row["price"]), float(row["quantity"])) for row in trades]
        assert entries_of(everything.received()) == wanted
        assert entries_of(some.received()) == [entry for entry in wanted if entry[0] == BTC.id]
        if len(rows):
            expected.on_rows(int(np.ascontiguousarray(rows).ctypes.data), len(rows))
        assert derived.latest_all().tobytes() == expected.latest_all().tobytes()
        assert path.trades == path.publish_latency.total == len(trades)
        for client in (everything, some):
            client.close()


def everything_in(folder: Folder) -> Rows:
    """All records of a tape, by its files."""
    reader, parts = TapeReader(folder), [empty_rows(0)]
    while len(rows := reader.read(1 + sum(map(len, parts)), 1 << 12)):
        parts.append(rows)
    return np.concatenate(parts)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes beyond `size` are short, then refused (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_write_that_ends_in_the_middle_is_finished_later_and_shown_once(tmp_path: Folder) -> None:
    with desk(tmp_path, hot_rows=1 << 12) as world:
        fanout = FanOut(world.intake.path, InterestTable(), 1)
        fanout.attach(address(encode_groups))
        client = Client()
        fanout.enter(client)
        pour(world.intake, trade(1) + trade(2))
        epoch = world.tape.epoch
        segment = next((tmp_path / "tape").glob("0*.tape"))
        with file_size_limit(segment.stat().st_size + 100):
            pour(world.intake, b"".join(map(trade, range(3, 10))))
            assert "ulimit" in (world.intake.stalled or "")
            assert len(entries_of(client.received())) == 2, "nobody sees what the tape does not hold"
        await until(lambda: world.intake.stalled is None)
        pour(world.intake, trade(10))
        world.check_tape()
        assert [int(number) for number in world.rows["id"]] == list(range(1, 11))
        assert len(entries_of(client.received())) == 8
        assert world.tape.epoch == epoch, "the same records were committed in the end"
        client.close()


async def test_a_disk_that_takes_nothing(tmp_path: Folder) -> None:
    with desk(tmp_path, hot_rows=1 << 12) as world:
        descriptor, full = world.tape.descriptor, os.open("/dev/full", os.O_WRONLY)
        world.tape.descriptor = full
        pour(world.intake, trade(1))
        assert world.intake.stalled
        assert world.tape.next_sequence == 1
        world.tape.descriptor = descriptor
        await until(lambda: world.intake.stalled is None)
        pour(world.intake, trade(2))
        assert [int(number) for number in world.rows["id"]] == [1, 2]
        world.check_tape()
        os.close(full)


async def test_segments_roll_under_the_kernel(tmp_path: Folder) -> None:
    """What reaches over a segment's end takes the slow way, and the next read the fast one again."""
    config = TapeConfig(hot_rows=1 << 12, segment_bytes=64 + 64 * 100, retention_bytes=1 << 30)
    with Tape.open(tmp_path / "tape", config) as tape:
        world = Desk(tape, Intake(tape), SYMBOLS)  # type: ignore[arg-type]
        world.intake.add_symbol(BTC)
        world.intake.readers.append(world.read)
        for start in range(1, 1_001, 7):
            pour(world.intake, b"".join(map(trade, range(start, start + 7))))
            await asyncio.sleep(0)
        assert len(list((tmp_path / "tape").glob("0*.tape"))) > 5
        held = everything_in(tmp_path / "tape")
        assert held.tobytes() == world.rows.tobytes()
        assert [int(number) for number in held["id"]] == list(range(1, 1_002))
