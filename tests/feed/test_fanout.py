"""feed/fanout: who is in which group, and the compiled send's remainder."""

import asyncio
import socket

import aiohttp

from tests.feed.harness import MemoryTape, rows_of, world
from tests.feed.test_slow_readers import SMALL, LazyReader, fill
from tests.wire.reading import entries_of
from tradeback.feed.fanout import FanOut, Group
from tradeback.feed.interest import NOTHING, Interest, InterestTable
from tradeback.kernel.jit import address
from tradeback.path.path import Path
from tradeback.wire.v1 import decode_v1
from tradeback.wire.v1_kernel import encode_groups


class Fake:
    """A subscriber whose socket is a list."""

    def __init__(self, interest: Interest, fd: int = -1) -> None:
        self.interest = interest
        self.group: Group | None = None
        self.place = 0
        self.plain = fd >= 0
        self.fd = fd
        self.lagging = False
        self.written: list[bytes] = []
        self.write = self.written.append


CLIENTS = 8


def attached(tape: MemoryTape) -> tuple[Path, FanOut]:
    path = Path(tape)
    path.attach()
    fanout = FanOut(path, InterestTable(), 1)
    fanout.attach(address(encode_groups))
    return path, fanout


def publish(path: Path, *trades: tuple[int, float, float]) -> None:
    tape, rows = path.tape, rows_of(trades)
    assert isinstance(tape, MemoryTape)
    path.serve(tape.append(rows), len(rows))


def test_groups_by_interest_and_removal_from_the_middle() -> None:
    tape = MemoryTape()
    path, fanout = attached(tape)
    clients = [Fake(frozenset({1})) for _ in range(5)] + [Fake(frozenset({2})), Fake(NOTHING)]
    for client in clients:
        fanout.enter(client)
    assert fanout.groups == 2
    fanout.leave(clients[1])
    fanout.leave(clients[1])
    publish(path, (1, 1.0, 1.0), (2, 2.0, 2.0))
    assert [entries_of(b"".join(client.written)) for client in clients] == [
        [(1, 1.0, 1.0)],
        [],
        [(1, 1.0, 1.0)],
        [(1, 1.0, 1.0)],
        [(1, 1.0, 1.0)],
        [(2, 2.0, 2.0)],
        [],
    ]
    assert (fanout.encoded, fanout.frames, fanout.bytes) == (2, 5, 5 * 26)
    for client in clients:
        fanout.leave(client)
    assert fanout.groups == 0


def test_a_client_that_stalls_in_the_middle_of_a_batch_leaves_after_it() -> None:
    tape = MemoryTape()
    path, fanout = attached(tape)
    fanout.interests.grow_arena(8 * (2 + 6 + 18))  # so that a batch takes several passes
    clients = [Fake(frozenset({1})) for _ in range(3)]
    positions: list[int] = []

    def stall(data: bytes) -> None:
        clients[1].written.append(data)
        positions.append(fanout.position)
        fanout.stalled(clients[1])

    clients[1].write = stall
    for client in clients:
        fanout.enter(client)
    publish(path, *[(1, float(turn), 1.0) for turn in range(1, 41)])
    whole = [(1, float(turn), 1.0) for turn in range(1, 41)]
    assert entries_of(b"".join(clients[0].written)) == whole
    assert entries_of(b"".join(clients[2].written)) == whole
    (position,) = positions
    assert entries_of(b"".join(clients[1].written)) == whole[: position - 1], "the cursor is what it got"
    assert clients[1].group is None
    assert fanout.position == 41


def test_the_compiled_send_gives_the_rest_of_a_full_socket_to_its_transport() -> None:
    tape = MemoryTape()
    path, fanout = attached(tape)
    pairs = [socket.socketpair() for _ in range(CLIENTS)]
    clients = []
    for near, far in pairs:
        near.setblocking(False)
        far.setblocking(False)
        clients.append(Fake(frozenset({1}), near.fileno()))
        fanout.enter(clients[-1])
    full, gone = clients[3], clients[5]
    taken = 0
    while True:
        try:
            taken += pairs[3][0].send(bytes(1_000))
        except BlockingIOError:
            break
    pairs[5][1].close()
    publish(path, *[(1, 1.5, 2.0)] * 20)
    expected = [(1, 1.5, 2.0)] * 20
    for place, (client, (_, far)) in enumerate(zip(clients, pairs, strict=True)):
        if client is gone:
            assert entries_of(b"".join(client.written)) == expected, "its transport finds out why"
        elif client is full:
            got = bytearray()
            while len(got) < taken:
                got += far.recv(65_536)
            assert entries_of(bytes(got[taken:]) + b"".join(client.written)) == expected
        else:
            assert not client.written, place
            assert entries_of(far.recv(65_536)) == expected
    for near, far in pairs:
        near.close()
        far.close()


async def test_one_lagging_client_of_many_leaves_the_compiled_loop_and_comes_back() -> None:
    async with world(SMALL, tape=MemoryTape(1 << 16)) as running, aiohttp.ClientSession() as session:
        others = [await session.ws_connect(running.ws) for _ in range(CLIENTS + 3)]
        for ws in others:
            await ws.send_json({"type": "subscribe", "symbols": ["BTCUSDT"]})
            await ws.receive_json(timeout=5)

        async def drain(ws: aiohttp.ClientWebSocketResponse) -> None:
            while decode_v1(await ws.receive_bytes(timeout=5))["price"][-1] != 9_999.0:
                pass

        with LazyReader(running) as lazy:
            client = await lazy.connect("BTCUSDT", "SOLUSDT")
            fill(running, client, symbols=1)
            await lazy.read_until_live(client)
            assert client.group is not None
        running.trade((1, 9_999.0, 1.0))
        await asyncio.gather(*map(drain, others))
        for ws in others:
            await ws.close()
