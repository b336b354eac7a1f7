"""Streams and who listens to them; frames are put together here, once per listener shape. Pure.

A channel is one stream, say `btcusdt@trade`. Its listeners are sorted into two lists, those that want
milliseconds and those that want microseconds, so that a source formats only what somebody reads.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

Append = Callable[[bytes], None]


def text_header(size: int) -> bytes:
    """WebSocket header of an unmasked text frame of `size` bytes, in the shortest form."""
    if size < 126:
        return bytes((0x81, size))
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


_HEADERS = [text_header(size) for size in range(4_096)]


def frame(payload: bytes) -> bytes:
    """One complete WebSocket text frame."""
    size = len(payload)
    return (_HEADERS[size] if size < 4_096 else text_header(size)) + payload


class Listener(NamedTuple):
    """Who takes a stream's frames, and in which shape."""

    append: Append
    """Takes one complete WebSocket frame."""
    combined: bool
    microseconds: bool


class Channel:
    """One stream."""

    __slots__ = ("_before", "_room", "listeners", "ms", "name", "us")

    def __init__(self, name: str) -> None:
        self.name = name
        self._before = b'{"stream":"' + name.encode() + b'","data":'
        self._room = len(self._before) + 1
        self.listeners: dict[int, Listener] = {}
        self.ms: list[tuple[bool, Append]] = []
        """Listeners that want milliseconds, as (combined, append)."""
        self.us: list[tuple[bool, Append]] = []
        """Listeners that want microseconds."""

    def add(self, key: int, listener: Listener) -> None:
        """Let connection `key` listen, or change its shape."""
        self.listeners[key] = listener
        self._sort()

    def remove(self, key: int) -> None:
        """Connection `key` no longer listens."""
        if self.listeners.pop(key, None) is not None:
            self._sort()

    def _sort(self) -> None:
        # In place: sources may hold these lists.
        everyone = self.listeners.values()
        self.ms[:] = [(one.combined, one.append) for one in everyone if not one.microseconds]
        self.us[:] = [(one.combined, one.append) for one in everyone if one.microseconds]

    def send(self, listeners: Iterable[tuple[bool, Append]], payload: bytes) -> None:
        """Frame `payload` for each of `listeners`, which is this channel's `ms` or `us`."""
        for combined, append in listeners:
            if combined:
                size = len(payload) + self._room
                header = _HEADERS[size] if size < 4_096 else text_header(size)
                append(b"%b%b%b}" % (header, self._before, payload))
            else:
                append(frame(payload))

    def publish(self, make: Callable[[bool], bytes]) -> None:
        """Send to all; `make(microseconds)` gives the payload and is called only for shapes that are read."""
        if self.ms:
            self.send(self.ms, make(False))
        if self.us:
            self.send(self.us, make(True))


class Hub:
    """All channels by name. A channel, once made, stays: sources keep references to it."""

    def __init__(self) -> None:
        self._channels: dict[str, Channel] = {}
        self.subscriptions = 0
        """Streams summed over connections."""
        self.on_change: Callable[[str], None] | None = None
        """Told the name of a stream whose listeners have changed."""

    def channel(self, name: str) -> Channel:
        """The channel called `name`; made when new."""
        found = self._channels.get(name)
        if found is None:
            found = self._channels[name] = Channel(name)
        return found

    def find(self, name: str) -> Channel | None:
        """The channel called `name`, if anybody ever asked for it."""
        return self._channels.get(name)

    def subscribe(self, name: str, key: int, listener: Listener) -> None:
        """Connection `key` listens to `name` (any name: unknown ones stay silent)."""
        channel = self.channel(name)
        if key not in channel.listeners:
            self.subscriptions += 1
        channel.add(key, listener)
        if self.on_change is not None:
            self.on_change(name)

    def unsubscribe(self, name: str, key: int) -> None:
        """Connection `key` no longer listens to `name`."""
        channel = self._channels.get(name)
        if channel is None or key not in channel.listeners:
            return
        self.subscriptions -= 1
        channel.remove(key)
        if self.on_change is not None:
            self.on_change(name)
