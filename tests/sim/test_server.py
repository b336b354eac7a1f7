"""Protocol rules through real sockets, with clients of another make."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tradeback.sim.book import Source
from tradeback.sim.config import SimConfig
from tradeback.sim.fault_play import FaultPlay
from tradeback.sim.faults import make_fault
from tradeback.sim.market import Synthetic
from tradeback.sim.recording import Recording
from tradeback.sim.server import SimServer

Start = Callable[..., Awaitable[SimServer]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts servers and stops them at the end."""
    servers: list[SimServer] = []

    async def begin(source: Source | None = None, faults: Any = None, **settings: Any) -> SimServer:
        settings.setdefault("client_messages_per_s", 1_000)
        market = source or Synthetic(3, 3_000, 1)
        clock, tls = settings.pop("clock", None), settings.pop("tls", None)
        config = SimConfig(**settings)
        servers.append(await SimServer.start(market, config, faults=faults, clock=clock, tls=tls))
        return servers[-1]

    yield begin
    for server in servers:
        await server.stop()


class SteppedClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_781_000_000_000_000_000

    def wall_ns(self) -> int:
        return self.now

    def steady_ns(self) -> int:
        return self.now


def tls_contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate of its own making, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "all.pem").write_bytes(secret + certificate.public_bytes(pem))
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(folder / "all.pem")
    client_side = ssl.create_default_context(cadata=certificate.public_bytes(pem).decode())
    return server_side, client_side


async def ask(socket: ClientConnection, **message: Any) -> Any:
    """Send a control message; the answer, data passed over."""
    await socket.send(json.dumps(message))
    while True:
        answer = json.loads(await socket.recv())
        if "result" in answer or "error" in answer:
            return answer


async def test_combined_and_raw_shapes_units_and_encoded_urls(start: Start) -> None:
    server = await start()
    async with (
        connect(
            f"{server.ws_url}/stream?streams=btcusdt%40trade&timeUnit=MICROSECOND", compression=None
        ) as one,
        connect(f"{server.ws_url}/ws/btcusdt@trade/ethusdt@trade", compression=None) as two,
    ):
        message = json.loads(await one.recv())
        assert message["stream"] == "btcusdt@trade"
        assert len(str(message["data"]["T"])) == len(str(message["data"]["E"])) == 16
        symbols = set[str]()
        while symbols != {"BTCUSDT", "ETHUSDT"}:
            raw = json.loads(await two.recv())
            assert len(str(raw["T"])) == 13
            symbols.add(raw["s"])


async def test_subscribe_list_and_the_combined_toggle(start: Start) -> None:
    server = await start()
    async with connect(f"{server.ws_url}/ws", compression=None) as socket:
        streams = ["btcusdt@bookTicker", "nosuch@trade"]
        assert await ask(socket, method="SUBSCRIBE", params=streams, id=1) == {"result": None, "id": 1}
        assert (await ask(socket, method="LIST_SUBSCRIPTIONS", id="a"))["result"] == streams
        assert "u" in json.loads(await socket.recv())
        await ask(socket, method="SET_PROPERTY", params=["combined", True], id=2)
        assert json.loads(await socket.recv())["stream"] == "btcusdt@bookTicker"
        await ask(socket, method="UNSUBSCRIBE", params=streams, id=3)
        assert (await ask(socket, method="LIST_SUBSCRIPTIONS", id=4))["result"] == []
        assert server.hub.subscriptions == 0


async def test_a_bad_stream_name_is_answered_then_closed(start: Start) -> None:
    server = await start()
    async with connect(f"{server.ws_url}/stream", compression=None) as socket:
        answer = await ask(socket, method="SUBSCRIBE", params=["@@@x##"], id=9)
        assert answer == {"error": {"code": 2, "msg": "Invalid request: invalid stream"}, "id": 9}
        with pytest.raises(ConnectionClosed):
            await socket.recv()


@pytest.mark.parametrize("path", ["/ws/0", "/ws/nosuch@trade", "/stream?streams=nosuch", "/stream?streams="])
async def test_streams_that_do_not_exist_are_let_pass_and_bring_nothing(start: Start, path: str) -> None:
    server = await start()
    async with connect(server.ws_url + path, compression=None) as socket:
        names = (await ask(socket, method="LIST_SUBSCRIPTIONS", id=1))["result"]
        assert names == [name for name in [path.rpartition("/")[2].rpartition("=")[2]] if name]
        # What comes next is what is asked for next, and nothing before it.
        await ask(socket, method="SUBSCRIBE", params=["btcusdt@bookTicker", "nonsense"], id=2)
        assert "BTCUSDT" in str(await socket.recv())


@pytest.mark.parametrize(("path", "status"), [("/stream/nonsense", 404), ("/ws/@@", 400)])
async def test_refused_paths(start: Start, path: str, status: int) -> None:
    server = await start()
    with pytest.raises(InvalidStatus) as refused:
        await connect(server.ws_url + path)
    assert refused.value.response.status_code == status


async def test_too_many_connections_are_refused_with_429(start: Start) -> None:
    server = await start(connections_per_window=2)
    for _ in range(2):
        async with connect(f"{server.ws_url}/ws"):
            pass
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{server.ws_url}/ws")
    assert refused.value.response.status_code == 429


async def test_too_many_messages_close_with_1008(start: Start) -> None:
    server = await start(client_messages_per_s=5)
    async with connect(f"{server.ws_url}/ws", compression=None) as socket:
        for number in range(6):
            await socket.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
        answers = 0
        with pytest.raises(ConnectionClosed) as closed:  # noqa: PT012 (which answer is the last is the point)
            while True:
                await socket.recv()
                answers += 1
    assert answers == 5
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "Too many requests")


async def test_pings_come_and_a_silent_client_is_cut(start: Start) -> None:
    server = await start(ping_interval_s=0.03, pong_timeout_s=0.06)
    async with connect(f"{server.ws_url}/ws", compression=None) as polite:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.ws_url.rpartition(":")[2]))
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        rest = await asyncio.wait_for(reader.read(), 5)
        assert rest[0] == 0x89
        assert 0 < rest[1] <= 125
        assert b"Pong timeout" in rest
        writer.close()
        assert (await ask(polite, method="LIST_SUBSCRIPTIONS", id=1))["result"] == []


async def test_a_connection_ends_with_its_life(start: Start) -> None:
    server = await start(connection_life_s=0.05)
    async with connect(f"{server.ws_url}/ws", compression=None) as socket:
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 5)


async def test_a_reader_that_is_too_slow_is_cut_and_others_do_not_notice(start: Start) -> None:
    server = await start(Synthetic(3, 60_000, 1, bursts=0), backlog_bytes_max=100_000)
    streams = "/stream?streams=btcusdt@bookTicker/ethusdt@bookTicker"
    _reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(server.ws_url.rpartition(":")[2]), limit=1
    )
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(
        f"GET {streams} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    async with connect(server.ws_url + streams, compression=None, max_queue=None) as socket:
        last: dict[str, int] = {}
        while not server.slow_readers_cut:
            message = json.loads(await asyncio.wait_for(socket.recv(), 5))
            assert message["data"]["u"] > last.get(message["stream"], 0)
            last[message["stream"]] = message["data"]["u"]
        async with asyncio.timeout(5):
            while len(server.connections) > 1:
                await socket.recv()
        assert len(server.connections) == 1
    writer.transport.abort()


async def test_the_market_waits_for_its_listeners(start: Start) -> None:
    server = await start(start_after_streams=3)
    assert server.player is not None
    async with connect(f"{server.ws_url}/ws/btcusdt@trade/ethusdt@trade", compression=None) as one:
        assert (await ask(one, method="LIST_SUBSCRIPTIONS", id=1))["result"] == [
            "btcusdt@trade",
            "ethusdt@trade",
        ]
        assert not server.player.started.is_set()
        await ask(one, method="SUBSCRIBE", params=["bnbusdt@trade"], id=2)
        await asyncio.wait_for(server.player.started.wait(), 5)


async def test_a_market_that_waited_begins_now_and_not_in_the_past(start: Start) -> None:
    clock = SteppedClock()
    server = await start(clock=clock)
    assert server.player is not None
    clock.now += 7_000_000_000
    assert server.player.now_us() == clock.now // 1_000
    url = f"{server.ws_url}/ws/btcusdt@trade?timeUnit=MICROSECOND"
    async with connect(url, compression=None, max_queue=None) as socket:
        await asyncio.wait_for(server.player.started.wait(), 5)
        clock.now += 2_000_000_000
        trade = json.loads(await asyncio.wait_for(socket.recv(), 5))
    assert 0 < clock.now // 1_000 - trade["E"] <= 2_000_000
    assert trade["T"] > clock.now // 1_000 - 2_100_000


async def test_a_recording_plays_over_tls_as_fast_as_it_goes(
    start: Start, tmp_path: Path, shared_folder: Path
) -> None:
    server_side, client_side = tls_contexts(tmp_path)
    path = shared_folder / "data/binance/spot_ws/ethusdt_20240809_part1.gz"
    server = await start(Recording(path), speed=0.0, tls=server_side)
    assert server.ws_url.startswith("wss://")
    ids: list[int] = []
    async with connect(f"{server.ws_url}/ws/ethusdt@trade", compression=None, ssl=client_side) as socket:
        await asyncio.wait_for(server.finished(), 20)
        while len(ids) < 3_997:
            ids.append(json.loads(await asyncio.wait_for(socket.recv(), 5))["t"])
    assert ids == list(range(ids[0], ids[0] + 3_997))


async def test_server_shutdown_is_announced_in_both_shapes(start: Start) -> None:
    server = await start(start_after_streams=-1)
    async with (
        connect(f"{server.ws_url}/ws", compression=None) as raw,
        connect(f"{server.ws_url}/stream", compression=None) as combined,
    ):
        server.announce_shutdown()
        assert json.loads(await raw.recv())["e"] == "serverShutdown"
        message = json.loads(await combined.recv())
        assert (message["stream"], message["data"]["e"]) == ("!serverShutdown", "serverShutdown")


async def test_faults_see_whole_frames_per_connection(start: Start) -> None:
    class DropAll(FaultPlay):
        """Drops every market frame."""

        seen = 0

        def on_frames(self, number: int, frames: list[bytes]) -> list[bytes]:
            self.seen += len(frames)
            return [frame for frame in frames if b'"result"' in frame]

    faults = DropAll([])
    server = await start(faults=faults)
    async with connect(f"{server.ws_url}/ws/btcusdt@trade", compression=None) as socket:
        while faults.seen < 50:
            await socket.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": 1}))
            assert json.loads(await socket.recv())["result"] == ["btcusdt@trade"]


async def test_klines_tickers_and_depth_flow(start: Start) -> None:
    server = await start()
    kinds = ("kline_1s", "miniTicker", "ticker", "ticker_1h", "avgPrice", "depth5@100ms", "depth@100ms")
    wanted = {f"btcusdt@{kind}" for kind in kinds} | {"!miniTicker@arr"}
    async with connect(f"{server.ws_url}/stream?streams={'/'.join(wanted)}", compression=None) as socket:
        seen: dict[str, Any] = {}
        while set(seen) != wanted or not seen["btcusdt@kline_1s"]["k"]["x"]:
            message = json.loads(await asyncio.wait_for(socket.recv(), 5))
            if message["stream"] != "btcusdt@kline_1s" or message["data"]["k"]["x"]:
                seen[message["stream"]] = message["data"]
    assert len(seen["btcusdt@depth5@100ms"]["bids"]) == 5
    assert seen["btcusdt@ticker"]["e"] == "24hrTicker"
    assert seen["btcusdt@ticker_1h"]["e"] == "1hTicker"
    assert seen["btcusdt@kline_1s"]["k"]["T"] == seen["btcusdt@kline_1s"]["k"]["t"] + 999


def fault_play(*entries: dict[str, Any]) -> FaultPlay:
    """A run of a script."""
    return FaultPlay([make_fault(entry) for entry in entries], 1, ["BTCUSDT"])


async def ended(socket: ClientConnection) -> ConnectionClosed:
    """How a connection ended."""
    return (await heard(socket))[1]


async def heard(socket: ClientConnection) -> tuple[list[str | bytes], ConnectionClosed]:
    """Every message until a connection ended, and how it did."""
    messages: list[str | bytes] = []
    async with asyncio.timeout(5):
        while True:
            try:
                messages.append(await socket.recv())
            except ConnectionClosed as closed:
                return messages, closed


@pytest.mark.parametrize(
    ("how", "code"), [("close", 1012), ("reset", None), ("drop", None), ("mid_frame", None)]
)
async def test_a_cut_is_seen_as_what_it_is(start: Start, how: str, code: int | None) -> None:
    cut = {"kind": "cut", "at": "20ms", "how": how, **({"code": 1012} if code else {})}
    server = await start(faults=fault_play(cut))
    async with connect(f"{server.ws_url}/ws/btcusdt@trade", compression=None) as socket:
        closed = await ended(socket)
    assert (closed.rcvd.code if closed.rcvd else None) == code


async def test_a_half_open_connection_neither_sends_nor_answers(start: Start) -> None:
    faults = fault_play({"kind": "half_open", "at": "20ms", "connections": 1})
    server = await start(faults=faults)
    url = f"{server.ws_url}/ws/btcusdt@trade"
    async with connect(url, compression=None) as dead, connect(url, compression=None) as alive:
        async with asyncio.timeout(5):
            while not faults.is_deaf(1):
                await alive.recv()
            before = server.connections[1].frames_sent
            pong = asyncio.ensure_future(await dead.ping())
            for _ in range(50):
                await alive.recv()
            await (await alive.ping())
        assert server.connections[1].frames_sent == before
        assert not pong.done()
        pong.cancel()
        dead.transport.abort()


async def test_broken_bytes_and_garbage_come_through(start: Start) -> None:
    garbage = {"kind": "garbage", "how": "binary", "chance": 1, "for": "400ms"}
    server = await start(faults=fault_play(garbage, {"kind": "broken_bytes", "at": "500ms", "how": "masked"}))
    async with connect(f"{server.ws_url}/ws/btcusdt@trade", compression=None, max_queue=None) as socket:
        messages, closed = await heard(socket)
    assert {type(message) for message in messages} == {str, bytes}
    assert closed.sent is not None
    assert closed.sent.code == 1002


async def test_a_refused_handshake_says_when_to_come_again(start: Start) -> None:
    server = await start(faults=fault_play({"kind": "refuse", "status": 429, "retry_after": "7s"}))
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{server.ws_url}/ws")
    assert refused.value.response.status_code == 429
    assert refused.value.response.headers["Retry-After"] == "7"


async def test_a_shutdown_is_announced_before_the_cut(start: Start) -> None:
    server = await start(faults=fault_play({"kind": "shutdown", "at": "10ms", "delay": "30ms"}))
    async with connect(f"{server.ws_url}/ws/btcusdt@trade", compression=None) as socket:
        words = ""
        while "serverShutdown" not in words:
            words = str(await asyncio.wait_for(socket.recv(), 5))
        closed = await ended(socket)
    assert closed.rcvd is not None
    assert closed.rcvd.code == 1001


async def test_the_exchange_lives_by_its_own_wrong_clock(start: Start) -> None:
    clock = SteppedClock()
    server = await start(faults=fault_play({"kind": "clock", "ms": 5_000}), clock=clock)
    assert server.player is not None
    assert server.player.now_us() == clock.now // 1_000 + 5_000_000
    server.play()
    server.flush()
    clock.now += 1_000_000_000
    assert server.player.now_us() == clock.now // 1_000 + 5_000_000


async def test_a_clock_that_steps_back_keeps_the_market_in_order(start: Start) -> None:
    server = await start(faults=fault_play({"kind": "clock", "at": "50ms", "ms": -150}))
    ids, times = [], []
    async with connect(f"{server.ws_url}/ws/btcusdt@trade", compression=None) as socket:
        for _ in range(300):
            trade = json.loads(await asyncio.wait_for(socket.recv(), 5))
            ids.append(trade["t"])
            times.append(trade["E"])
    assert ids == list(range(ids[0], ids[0] + 300))
    assert any(after < before for before, after in pairwise(times))


async def test_a_day_of_a_connection_passes_in_no_time(start: Start) -> None:
    server = await start(life_rate=1_000_000.0)
    async with connect(f"{server.ws_url}/ws/btcusdt@trade", compression=None) as socket:
        closed = await ended(socket)
    assert closed.rcvd is not None
    assert closed.rcvd.code in (1001, 1008)
