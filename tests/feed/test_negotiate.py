"""feed/negotiate: path, version, nonce, subprotocol."""

import pytest
from multidict import CIMultiDict

from tradeback.feed.negotiate import Accepted, Declined, negotiate

GOOD = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}


@pytest.mark.parametrize(
    ("asked", "picked"),
    [(None, None), ("tradeback.v1", "tradeback.v1"), ("tradeback.v1, tradeback.v2", "tradeback.v2")],
)
def test_subprotocols(asked: str | None, picked: str | None) -> None:
    headers = CIMultiDict(GOOD)
    if asked is not None:
        headers["sec-websocket-protocol"] = asked
    assert negotiate("/api/v1/ws", headers) == Accepted(picked)
    assert negotiate("/api/v1/ws?token=x", headers) == Accepted(picked)


@pytest.mark.parametrize(
    ("target", "changes", "status"),
    [
        ("/ws", {}, 404),
        ("/api/v1/ws/", {}, 404),
        ("/api/v1/wsx?x=/api/v1/ws", {}, 404),
        ("/api/v1/ws", {"Sec-WebSocket-Version": "8"}, 426),
        ("/api/v1/ws", {"Sec-WebSocket-Key": "short"}, 400),
        ("/api/v1/ws", {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j"}, 400),
        ("/api/v1/ws", {"Sec-WebSocket-Key": "äGhlIHNhbXBsZSBub25jZQ=="}, 400),
        ("/api/v1/ws", {"Sec-WebSocket-Protocol": "graphql-ws"}, 400),
        ("/api/v1/ws", {"Sec-WebSocket-Protocol": ""}, 400),
    ],
)
def test_declined(target: str, changes: dict[str, str], status: int) -> None:
    outcome = negotiate(target, CIMultiDict({**GOOD, **changes}))
    assert isinstance(outcome, Declined)
    assert outcome.status == status


def test_missing_headers_are_declined() -> None:
    assert isinstance(negotiate("/api/v1/ws", CIMultiDict()), Declined)
