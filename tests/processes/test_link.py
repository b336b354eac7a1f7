"""processes/link: messages and open files arrive whole and in order, whatever sockets do with the bytes."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.exchange.harness import until
from tradeback.processes.link import (
    HEAD,
    MESSAGE_BYTES_MAX,
    WAITING_BYTES_MAX,
    Link,
    Listener,
    address_of,
    connect,
    listen,
)

Heard = list[tuple[dict[str, Any], bytes, list[int]]]


def pair() -> tuple[Link, Link, Heard, list[str]]:
    """Two ends, what the second hears, and which of them has ended."""
    near, far = socket.socketpair()
    heard: Heard = []
    ended: list[str] = []
    first = Link(near, lambda *_: None, lambda: ended.append("near"))
    second = Link(far, lambda *message: heard.append(message), lambda: ended.append("far"))
    return first, second, heard, ended


sizes = st.sampled_from((0, 1, 100, 70_000, 400_000))


@settings(deadline=None)
@given(st.lists(st.tuples(sizes, st.integers(0, 2)), min_size=1, max_size=12))
def test_everything_arrives_in_order(messages: list[tuple[int, int]]) -> None:
    async def run() -> None:
        near, far, heard, _ = pair()
        sent = []
        for number, (size, count) in enumerate(messages):
            behind = bytes([number]) * size
            pipes = [os.pipe() for _ in range(count)]
            assert near.send({"n": number}, behind, [write for _, write in pipes])
            for _, write in pipes:
                os.close(write)  # the files are the receiver's now, or wait in the link
            sent.append((number, behind, [read for read, _ in pipes]))
        await until(lambda: len(heard) == len(sent))
        for (number, behind, reads), (message, got, files) in zip(sent, heard, strict=True):
            assert (message, got) == ({"n": number}, behind)
            for read, file in zip(reads, files, strict=True):
                os.write(file, b"here")
                assert os.read(read, 10) == b"here"
                os.close(file)
                os.close(read)
        near.close()
        far.close()

    asyncio.run(run())


async def test_the_other_end_is_told_once() -> None:
    near, far, heard, ended = pair()
    near.send({"last": 1})
    near.close()
    await until(lambda: ended)
    assert ended == ["far"]
    assert [message for message, _, _ in heard] == [{"last": 1}]
    assert not near.send({})
    assert not far.send({})
    near.close()


async def test_one_that_is_never_read_is_cut() -> None:
    near, far = socket.socketpair()
    ended: list[bool] = []
    link = Link(near, lambda *_: None, lambda: ended.append(True))
    before = len(os.listdir("/proc/self/fd"))
    lump, sent = bytes(1 << 20), 0
    while link.send({}, lump, [far.fileno()]):
        sent += len(lump)
    assert ended == [True]
    assert WAITING_BYTES_MAX // 2 < sent <= WAITING_BYTES_MAX + (1 << 20)
    assert len(os.listdir("/proc/self/fd")) < before, "files that waited are closed"
    far.close()


async def test_a_message_beyond_all_bounds_ends_the_link() -> None:
    near, far = socket.socketpair()
    ended: list[bool] = []
    Link(far, lambda *_: None, lambda: ended.append(True))
    near.send(HEAD.pack(2, MESSAGE_BYTES_MAX, 0) + b"{}")
    await until(lambda: ended)
    near.close()


async def test_what_was_said_before_the_end_is_heard() -> None:
    near, far, heard, ended = pair()
    for number in range(3):
        near.send({"n": number}, bytes(100_000))
    near.close()
    far.read_rest()
    assert len(heard) == 2 or len(heard) == 3  # as much as the socket had taken
    assert ended == ["far"]


async def test_listening_and_coming_back() -> None:
    sock = listen()
    address = address_of(sock)
    links: list[Link] = []
    heard: list[dict[str, Any]] = []
    listener = Listener(sock, links.append, lambda link, message, behind, files: heard.append(message))
    assert connect("nobody-" + address) is None
    for number in range(2):
        far = connect(address)
        assert far is not None
        link = Link(far, lambda *_: None, lambda: None)
        link.send({"n": number})
        await until(lambda number=number: len(heard) == number + 1)  # type: ignore[misc]
        link.close()
        await until(lambda: not listener.links)
    assert heard == [{"n": 0}, {"n": 1}]
    listener.close()
    assert connect(address) is None


def test_a_process_of_another_user_is_not_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tradeback.processes import link

    near, far = socket.socketpair()
    assert link.is_ours(near)
    monkeypatch.setattr(os, "getuid", lambda: 4_242)
    assert not link.is_ours(near)
    near.close()
    far.close()
