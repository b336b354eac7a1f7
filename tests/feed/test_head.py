"""feed/head: which heads go where, and Firefox's Connection line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.feed.head import (
    may_become_request,
    parse_head,
    read_request,
    with_plain_connection,
    without_credentials,
)


@pytest.mark.parametrize(
    ("head", "upgrade"),
    [
        (b"GET / HTTP/1.1\r\nHost: x", False),
        (b"GET /api/v1/ws HTTP/1.1\r\nUpgrade: websocket", True),
        (b"GET /api/v1/ws HTTP/1.1\r\nuPGRADE :  WebSocket ", True),
        (b"GET /api/v1/ws HTTP/1.1\r\nUpgrade: h2c, websocket", True),
        (b"GET /api/v1/ws HTTP/1.1\r\nUpgrade: h2c", False),
        (b"GET /api/v1/ws HTTP/1.0\r\nUpgrade: websocket", False),
        (b"POST /api/v1/ws HTTP/1.1\r\nUpgrade: websocket", False),
        (b"GET / HTTP/1.1\r\nX-Note: Upgrade: websocket", False),
    ],
)
def test_upgrades(head: bytes, upgrade: bool) -> None:
    parsed = parse_head(head)
    assert parsed is not None
    assert parsed.upgrade is upgrade


@pytest.mark.parametrize("header", [b"Host", b"Ho st: x", b": x", b"X: \x00", b" folded: x", b""])
def test_broken_headers(header: bytes) -> None:
    assert parse_head(b"GET / HTTP/1.1\r\n" + header + b"\r\nHost: x") is None


@pytest.mark.parametrize(
    "line", [b"", b"GET", b"GET /", b"get / HTTP/1.1", b"GET / HTTP/2.0", b"\x16\x03\x01"]
)
def test_no_request_line(line: bytes) -> None:
    assert parse_head(line + b"\r\nHost: x") is None


@given(st.from_regex(rb"\A[A-Z]{1,20} [!-~]{1,60} HTTP/1\.[01]\r\n[ -~]{0,20}\Z"), st.integers(min_value=0))
def test_no_start_of_a_request_is_turned_away(head: bytes, size: int) -> None:
    assert may_become_request(head[: size % (len(head) + 1)])


@pytest.mark.parametrize("start", [b"\x16\x03\x01\x02", b"hello", b"\x00", b"GET / FTP", b"[]", b" GET / "])
def test_what_cannot_become_a_request_is_turned_away_at_once(start: bytes) -> None:
    assert not may_become_request(start)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"Connection: keep-alive, Upgrade", b"Connection: Upgrade"),
        (b"connection:Upgrade", b"Connection: Upgrade"),
        (b"Connection: keep-alive", b"Connection: keep-alive"),
        (b"X-Connection: keep-alive, Upgrade", b"X-Connection: keep-alive, Upgrade"),
    ],
)
def test_connection_line(line: bytes, expected: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\n%s\r\nUpgrade: websocket"
    assert with_plain_connection(head % line) == head % expected


def test_credentials_are_taken_out_of_a_head() -> None:
    head = (
        b"GET /api/v1/ws?token=hunter2 HTTP/1.1\r\nHost: x\r\nCookie: session_token=hunter2\r\n"
        b"aUTHORIZATION : Bearer hunter2\r\nUpgrade: websocket"
    )
    assert without_credentials(head) == b"GET /api/v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket"
    request = read_request(head)
    assert (request.path, request.query) == ("/api/v1/ws", "token=hunter2")
    assert request.all("cookie") == ["session_token=hunter2"]
    assert request.all("authorization") == ["Bearer hunter2"]
    assert request.all("origin") == []
