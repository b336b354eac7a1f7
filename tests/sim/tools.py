"""Helpers of the simulator's tests: a market in memory, and what its frames say."""

import json
from collections import defaultdict
from typing import Any

from tradeback.sim.book import Source
from tradeback.sim.channels import Hub, Listener
from tradeback.sim.periodic import TICK_US, Periodic

START_US = 1_781_000_000_123_456
Payload = dict[str, Any]


def body(frame: bytes) -> bytes:
    """Payload of one unmasked WebSocket frame; fails unless the header is the shortest form."""
    assert frame[0] == 0x81
    size, at = frame[1], 2
    if size == 126:
        size, at = int.from_bytes(frame[2:4], "big"), 4
        assert size >= 126
    elif size == 127:
        size, at = int.from_bytes(frame[2:10], "big"), 10
        assert size >= 65_536
    assert len(frame) == at + size
    return frame[at:]


def play(
    source: Source, seconds: float, kinds: tuple[str, ...], *, microseconds: bool = True, symbols: int = 99
) -> tuple[dict[str, list[Payload]], list[bytes]]:
    """Play a source in memory; returns {stream: payloads} and all frames in order."""
    frames: list[bytes] = []
    hub = Hub()
    source.attach(hub)
    periodic = Periodic(source, hub)
    now_us = source.begin(START_US)
    listener = Listener(frames.append, True, microseconds)
    for book in list(source.books.values())[:symbols]:
        for kind in kinds:
            hub.subscribe(f"{book.instrument.stream}@{kind}", 1, listener)
    end_us = now_us + int(seconds * 1e6)
    tick_us = now_us // TICK_US * TICK_US + TICK_US
    while tick_us <= end_us:
        source.advance(tick_us, 10**9)
        periodic.tick(tick_us)
        tick_us += TICK_US
    return by_stream(frames), frames


def by_stream(frames: list[bytes]) -> dict[str, list[Payload]]:
    """Combined frames by stream name."""
    found: dict[str, list[Payload]] = defaultdict(list)
    for frame in frames:
        message = json.loads(body(frame))
        found[message["stream"]].append(message["data"])
    return found
