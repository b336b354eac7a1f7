"""exchange.socket_reader: where bytes go, and when they are acknowledged."""

import asyncio
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.exchange.harness import Desk, desk
from tests.ingest.oracle import ws_frame
from tests.ingest.world import combined, raw, trade
from tradeback.exchange.socket_reader import SHADOW_READS, SocketReader
from tradeback.model.limits import READ_BUFFER_BYTES
from tradeback.model.record import TRADE, Rows
from tradeback.ops.clock import SystemClock

_UNACKED_AT = 24
"""Byte of tcpi_unacked in Linux' struct tcp_info."""


class Carrier(asyncio.Transport):
    """A transport of a real socket that somebody else reads."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__({"socket": sock})

    def get_protocol(self) -> asyncio.BaseProtocol:
        return asyncio.Protocol()

    def is_closing(self) -> bool:
        return False


class Nobody:
    """An owner to whom nothing may come."""

    def on_side_frame(self, opcode: int, payload: bytes, status: int, recv_ns: int) -> None:
        raise AssertionError((opcode, payload, status))

    def on_broken(self, close_code: int, reason: str) -> None:
        raise AssertionError((close_code, reason))

    def on_shadow(self, payload: bytes, row: Rows) -> None:
        assert row["kind"] == TRADE

    def on_closed(self, error: Exception | None) -> None:
        raise AssertionError(error)


def message(identifier: int) -> bytes:
    return ws_frame(combined("btcusdt@trade", raw(trade("BTCUSDT", identifier))))


@contextmanager
def connected(family: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """(exchange's end, ours)"""
    if family == socket.AF_UNIX:
        theirs, ours = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with theirs, ours:
        yield theirs, ours


def unacked(sock: socket.socket) -> int:
    """Segments of this socket that the other end has not acknowledged."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("=I", info, _UNACKED_AT)[0])


def ids(world: Desk) -> list[int]:
    return [int(number) for number in world.rows["id"]]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="TCP_QUICKACK and tcp_info are Linux'")
async def test_what_was_read_is_acknowledged_after_it_was_served(tmp_path: Path) -> None:
    """Not before recv returns, which would cost the trade 0.8 us; and not 40 ms later."""
    with desk(tmp_path) as world, connected(socket.AF_INET) as (theirs, ours):
        reader = SocketReader(world.intake, SystemClock(), 0, Carrier(ours), Nobody())
        owed = []
        for identifier in range(1, 61):
            theirs.sendall(message(identifier))
            count = ours.recv_into(reader.get_buffer(-1))
            owed.append(unacked(theirs))
            reader.buffer_updated(count)
            assert ids(world) == list(range(1, identifier + 1))
            if identifier > 1:
                assert unacked(theirs) == 0
        # The first segments of a connection are acknowledged at once, whatever is asked for.
        assert owed[30:] == [1] * 30


async def test_a_sample_is_compared_after_its_trades_are_served(tmp_path: Path) -> None:
    """The slow path takes 100 times as long: nobody waits for it but who comes after."""
    with desk(tmp_path) as world, connected(socket.AF_UNIX) as (theirs, ours):
        seen: list[tuple[int, list[int], bytes]] = []

        class Compares(Nobody):
            def on_shadow(self, payload: bytes, row: Rows) -> None:
                seen.append((int(row["id"][0]), ids(world), payload))

        reader = SocketReader(world.intake, SystemClock(), 0, Carrier(ours), Compares())

        def read(*frames: bytes) -> None:
            theirs.sendall(b"".join(frames))
            reader.buffer_updated(ours.recv_into(reader.get_buffer(-1)))

        read(message(1), message(2))
        for identifier in range(3, SHADOW_READS + 2):
            read(message(identifier))
        assert [identifier for identifier, _, _ in seen] == [1], "the first read, then one in SHADOW_READS"
        rest = message(SHADOW_READS + 4)
        read(message(SHADOW_READS + 2), message(SHADOW_READS + 3), rest[:50])
        read(rest[50:])
        (_, served, payload), (sampled, served_later, _) = seen
        assert payload in message(1)
        assert served == [1, 2]
        assert (sampled, served_later[-1]) == (SHADOW_READS + 2, SHADOW_READS + 3)
        assert ids(world) == list(range(1, SHADOW_READS + 5)), "what a sampled read leaves in pieces goes on"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
async def test_frames_in_pieces_follow_each_other(tmp_path: Path, family: int) -> None:
    """Whatever a read ends with, the next one goes behind what has not been taken."""
    stream = b"".join(map(message, range(1, 201)))
    with desk(tmp_path) as world, connected(family) as (theirs, ours):
        reader = SocketReader(world.intake, SystemClock(), 0, Carrier(ours), Nobody())
        whole = len(reader.get_buffer(-1))
        assert whole == READ_BUFFER_BYTES
        place = 0
        for size in [1, 2, 400, 3, 777, 1, 1, 5_000] * 100:
            piece = stream[place : place + size]
            if not piece:
                break
            theirs.sendall(piece)
            place += len(piece)
            reader.buffer_updated(ours.recv_into(reader.get_buffer(-1)))
        assert place == len(stream)
        assert ids(world) == list(range(1, 201))
        assert len(reader.get_buffer(-1)) == whole, "nothing is left, so the next read has all the room"
