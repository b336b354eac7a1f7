"""feed/front: HTTP and WebSocket on one port, over real sockets, byte by byte where it matters."""

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest
from aiohttp import web

from tests.feed.harness import World, entries, fronted, subscribe, text, world
from tests.wire.reading import entries_of
from tradeback.feed.front import Front
from tradeback.model.config import FeatureConfig, FeedConfig
from tradeback.model.errors import StartupError
from tradeback.model.limits import BODY_BYTES_MAX, HEAD_BYTES_MAX

UPGRADE = (
    b"GET /api/v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: %s\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # the example of RFC 6455 section 1.3
SUBSCRIBE_FRAME = bytes((0x81, 0x80 | 43, 0, 0, 0, 0)) + b'{"type":"subscribe","symbols":["BTCUSDT"]}\n'


class Raw:
    """A plain socket to the front."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers in lower case, body by Content-Length of the next HTTP answer."""
        async with asyncio.timeout(5):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head[:-4].split(b"\r\n")
            parts = (line.partition(b":") for line in lines[1:])
            headers = {name.strip().lower(): value.strip() for name, _, value in parts}
            body = await self.reader.readexactly(int(headers.get(b"content-length", b"0")))
        return int(lines[0].split()[1]), headers, body

    async def error(self) -> tuple[int, str]:
        """Status and code of an error answer in the one shape; the connection ends behind it."""
        status, _, body = await self.answer()
        async with asyncio.timeout(5):
            assert await self.reader.read() == b""
        return status, orjson.loads(body)["error"]["code"]


@pytest.fixture
async def served() -> AsyncIterator[World]:
    async with world() as running:
        yield running


async def dial(running: World) -> Raw:
    return Raw(*await asyncio.open_connection("127.0.0.1", running.front.port))


async def test_keep_alive_and_pipelining(served: World) -> None:
    raw = await dial(served)
    request = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    raw.writer.write(request * 3)
    for _ in range(3):
        assert (await raw.answer())[0] == 200
    raw.writer.write(request)
    assert (await raw.answer())[2] == b'{"status":"ok"}'
    raw.writer.close()


async def test_head_request_has_no_body(served: World) -> None:
    async with aiohttp.ClientSession() as session, session.head(served.http + "/health/live") as answer:
        assert answer.status == 200
        assert await answer.read() == b""


async def test_a_head_that_arrives_byte_by_byte(served: World) -> None:
    raw = await dial(served)
    for byte in b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n":
        raw.writer.write(bytes([byte]))
        await raw.writer.drain()
        await asyncio.sleep(0)
    assert (await raw.answer())[0] == 200
    raw.writer.close()


async def test_a_body_goes_through_whole() -> None:
    async def count(request: web.Request) -> web.Response:
        return web.json_response(len(await request.read()))

    app = web.Application(client_max_size=BODY_BYTES_MAX * 10)
    app.router.add_post("/count", count)
    async with (
        fronted(app) as http,
        aiohttp.ClientSession() as session,
        session.post(f"{http}/count", data=bytes(300_000)) as answer,
    ):
        assert await answer.json() == 300_000


@pytest.mark.parametrize("connection", [b"Upgrade", b"upgrade", b"keep-alive, Upgrade"])
async def test_upgrade_with_a_frame_in_the_same_segment(served: World, connection: bytes) -> None:
    raw = await dial(served)
    raw.writer.write(UPGRADE % connection + SUBSCRIBE_FRAME)
    status, headers, _ = await raw.answer()
    assert status == 101
    assert headers[b"sec-websocket-accept"] == ACCEPT
    assert b"sec-websocket-protocol" not in headers
    async with asyncio.timeout(5):
        first, size = await raw.reader.readexactly(2)
        assert first == 0x81
        answer = orjson.loads(await raw.reader.readexactly(size))
    assert answer["symbols"]["BTCUSDT"]["id"] == 1
    served.trade((1, 100.5, 2.0))
    async with asyncio.timeout(5):
        frame = await raw.reader.readexactly(2 + 6 + 18)
    assert entries_of(frame) == [(1, 100.5, 2.0)]
    raw.writer.close()


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "bad_request"),
        (b"hello\r\n\r\n", 400, "bad_request"),
        (b"GET /\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * HEAD_BYTES_MAX, 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n", 431, "head_too_large"),
        ((UPGRADE % b"Upgrade").replace(b"/api/v1/ws", b"/elsewhere"), 404, "not_found"),
        ((UPGRADE % b"Upgrade").replace(b"Version: 13", b"Version: 7"), 426, "unsupported_version"),
        ((UPGRADE % b"Upgrade").replace(b"b25jZQ==", b"b25j"), 400, "bad_request"),
    ],
)
async def test_what_is_refused(served: World, sent: bytes, status: int, code: str) -> None:
    raw = await dial(served)
    raw.writer.write(sent)
    assert await raw.error() == (status, code)
    raw.writer.close()


async def test_a_feed_that_is_switched_off_says_so() -> None:
    async with world(features=FeatureConfig(binary_websocket=False)) as running:
        raw = await dial(running)
        raw.writer.write(UPGRADE % b"Upgrade")
        status, _, body = await raw.answer()
        assert status == 404
        assert b"feature.binary_websocket" in body
        raw.writer.close()


async def test_a_slow_head_times_out() -> None:
    async with world(front_options={"head_seconds_max": 0.05}) as running:
        raw = await dial(running)
        raw.writer.write(b"GET / HTTP/1.1\r\n")
        assert await raw.error() == (408, "request_timeout")
        raw.writer.close()


async def test_a_silent_connection_is_dropped_at_close() -> None:
    async with world() as running:
        raw = await dial(running)
        raw.writer.write(b"GET / HT")
        while not running.front.heads:
            await asyncio.sleep(0)
    async with asyncio.timeout(5):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await raw.reader.readexactly(1)
    raw.writer.close()


async def test_unknown_subprotocols_are_refused_and_known_ones_echoed(served: World) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(served.ws, protocols=["graphql-ws"])
        assert refused.value.status == 400
        async with session.ws_connect(served.ws, protocols=["tradeback.v2", "tradeback.v1"]) as ws:
            assert ws.protocol == "tradeback.v2"
        async with session.ws_connect(served.ws) as ws:
            assert ws.protocol is None


async def test_clients_beyond_the_limit_get_503() -> None:
    async with (
        world(FeedConfig(clients_max=1)) as running,
        aiohttp.ClientSession() as session,
        session.ws_connect(running.ws),
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(running.ws)
        assert refused.value.status == 503


async def test_no_descriptor_left_gets_503(served: World) -> None:
    served.front.fd_max = 0
    raw = await dial(served)
    assert await raw.error() == (503, "too_many_connections")
    raw.writer.close()


async def test_a_busy_port_is_refused_with_the_remedy(served: World) -> None:
    front = Front(lambda: asyncio.Protocol(), lambda request: None)
    with pytest.raises(StartupError, match=f"port {served.front.port} on 127.0.0.1 is in use.*SERVER_PORT"):
        await front.open("127.0.0.1", served.front.port)


async def test_a_foreign_address_is_refused_with_the_remedy() -> None:
    front = Front(lambda: asyncio.Protocol(), lambda request: None)
    with pytest.raises(StartupError, match="SERVER_HOST"):
        await front.open("192.0.2.1", 0)


async def test_send_buffer_and_nagle_of_a_client() -> None:
    async with world(FeedConfig(send_buffer_bytes=16_384)) as running, running.connect() as ws:
        await subscribe(ws, "BTCUSDT")
        (client,) = running.feed.clients
        sock = client.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 16_384  # the kernel doubles it
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_get_on_the_socket_path_says_what_to_do(served: World) -> None:
    async with aiohttp.ClientSession() as session, session.get(served.http + "/api/v1/ws") as answer:
        assert answer.status == 426
        assert answer.headers["Upgrade"] == "websocket"


async def test_connections_before_the_kernels_are_loaded() -> None:
    async with world(attach=False) as running, running.connect() as ws:
        assert not running.feed.ready
        await subscribe(ws, "BTCUSDT")
        running.feed.attach_kernels()
        running.trade((1, 1.0, 2.0))
        assert await entries(ws, 1) == [(1, 1.0, 2.0)]
        await ws.send('{"type":"ping"}')
        assert (await text(ws))["type"] == "pong"


def test_importing_the_feed_does_not_import_numba() -> None:
    import subprocess
    import sys

    code = "import sys, tradeback.feed.front, tradeback.api.app; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
