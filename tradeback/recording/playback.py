"""A recording as the exchange would send it: WebSocket frames, read by read, in the order of receipt.

Frames of one connection with the same receive time came with one socket read and are played as one. Of
connections with the same time the first in `list_sources`' order comes first, so that every playback of
the same files is the same.
"""

import heapq
import time
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from tradeback.exchange.streams import STREAMS
from tradeback.recording.reading import Source, is_mark, read_lines

_EVENT: Final = b'{"stream":"'
_TEXT: Final = 0x81
READ_BYTES_MAX: Final = 128 * 1024
"""A foreign recording may give a thousand frames the same time."""
BATCH_READS: Final = 2_048


class Read(NamedTuple):
    """What one socket read brought: receive time in ns, index of the source, bytes, number of frames."""

    recv_ns: int
    source: int
    data: bytes
    frames: int


class Span(NamedTuple):
    """Receive times in ns, from inclusive, to exclusive; None: no bound."""

    from_ns: int | None = None
    to_ns: int | None = None


class RecordedClock:
    """A clock whose wall shows the time of what is being played. Steady time is the machine's."""

    def __init__(self, now_ns: int = 0) -> None:
        self.now_ns = now_ns

    def wall_ns(self) -> int:
        """Receive time of what is being played."""
        return self.now_ns

    def steady_ns(self) -> int:
        """The machine's."""
        return time.monotonic_ns()


def frame(payload: bytes) -> bytes:
    """`payload` as one whole, unmasked text frame, as servers send it (RFC 6455 section 5.2)."""
    return _header(len(payload)) + payload


def reads(
    sources: Sequence[Source], span: Span | None = None, symbols: Collection[str] | None = None
) -> Iterator[Read]:
    """All reads in the order of receipt; of `symbols` only, if given.

    Streams that an engine does not subscribe are passed over.
    """
    names = None if symbols is None else {symbol.lower().encode() for symbol in symbols}
    each = (_reads_of(index, source, span or Span(), names) for index, source in enumerate(sources))
    return heapq.merge(*each, key=lambda read: read.recv_ns)


def batches(found: Iterator[Read]) -> Iterator[list[Read]]:
    """The same in lists, so that a thread can read ahead."""
    while batch := list(islice(found, BATCH_READS)):
        yield batch


def _reads_of(index: int, source: Source, span: Span, names: Collection[bytes] | None) -> Iterator[Read]:
    headers: dict[int, bytes] = {}
    parts: list[bytes] = []
    stamp = frames = size = 0
    kinds = tuple(f"@{stream}".encode() for stream in STREAMS)
    for line in read_lines(source):
        recv_ns, body = line
        if span.to_ns is not None and recv_ns >= span.to_ns:
            continue
        if (span.from_ns is not None and recv_ns < span.from_ns) or is_mark(line):
            continue
        if body.startswith(_EVENT):
            stream = body[len(_EVENT) : body.find(b'"', len(_EVENT))]
            if not stream.endswith(kinds) or (names is not None and stream.partition(b"@")[0] not in names):
                continue
        if parts and (recv_ns != stamp or size >= READ_BYTES_MAX):
            yield Read(stamp, index, b"".join(parts), frames)
            parts, frames, size = [], 0, 0
        length = len(body)
        header = headers.get(length)
        if header is None:
            header = headers[length] = _header(length)
        parts += (header, body)
        stamp, frames, size = recv_ns, frames + 1, size + length
    if parts:
        yield Read(stamp, index, b"".join(parts), frames)


def _header(length: int) -> bytes:
    if length < 126:
        return bytes((_TEXT, length))
    if length < 1 << 16:
        return bytes((_TEXT, 126)) + length.to_bytes(2, "big")
    return bytes((_TEXT, 127)) + length.to_bytes(8, "big")
