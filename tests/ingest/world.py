"""The kernels as tests call them: frames in bytes, records out. And the frames themselves."""

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.ingest.oracle import Event, event_of, row_of
from tradeback.ingest import context as words
from tradeback.ingest.batch import decode_many, decode_one
from tradeback.ingest.context import IngestContext
from tradeback.ingest.grammar import OK
from tradeback.ingest.read import admit_rows, read_frames
from tradeback.model.limits import READ_PADDING_BYTES
from tradeback.model.record import ROW_BYTES, Rows, empty_rows
from tradeback.ops.metrics import Histogram

EPOCH = 77
RECV_NS = 1_700_000_000_123_456_789
ROWS_MAX = 1_024


def raw(event: Mapping[str, str] | Iterable[tuple[str, str]]) -> bytes:
    """A payload from its keys and their JSON texts, without spaces; keys may repeat."""
    pairs = event.items() if isinstance(event, Mapping) else event
    return ("{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}").encode()


def combined(stream: str, payload: bytes) -> bytes:
    """The payload as a combined stream sends it."""
    return b'{"stream":"' + stream.encode() + b'","data":' + payload + b"}"


def trade(symbol: str, identifier: int, price: str = "61500.25000000", **changes: str) -> dict[str, str]:
    """A trade's keys in the documented order."""
    event = {"e": '"trade"', "E": "1723161255208", "s": f'"{symbol}"', "t": str(identifier)}
    event |= {"p": f'"{price}"', "q": '"0.01250000"', "T": "1723161255207", "m": "true", "M": "true"}
    return event | changes


def agg(symbol: str, identifier: int, first: int, last: int, **changes: str) -> dict[str, str]:
    """An aggregate's keys in the documented order."""
    event = {"e": '"aggTrade"', "E": "1723161255208", "s": f'"{symbol}"', "a": str(identifier)}
    event |= {"p": '"61500.25000000"', "q": '"9.07000000"', "f": str(first), "l": str(last)}
    return event | {"T": "1723161255207", "m": "false", "M": "true"} | changes


def quote(symbol: str, identifier: int, **changes: str) -> dict[str, str]:
    """A quote's keys in the documented order."""
    event = {"u": str(identifier), "s": f'"{symbol}"', "b": '"171.23000000"', "B": '"88.10000000"'}
    return event | {"a": '"171.24000000"', "A": '"12.45000000"'} | changes


@dataclass
class Read:
    """The outcome of one call of read_frames."""

    rows: Rows
    consumed: int
    side: tuple[int, bytes, int] | None
    """First byte, payload and status of the frame it stopped at."""
    error: int
    needed: int


class Room:
    """One ingest context with symbols 1, 2, ... and calls of every kernel."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.lag = Histogram()
        self.context = IngestContext(self.lag.bounds, self.lag.counts, self.lag.sums)
        self.ids = {name: index for index, name in enumerate(symbols, 1)}
        for name, symbol_id in self.ids.items():
            self.context.add_symbol(name, symbol_id)

    @property
    def scratch(self) -> NDArray[np.int64]:
        """A copy of the scratch area as words."""
        return np.frombuffer(ctypes.string_at(self.word(words.SCRATCH), words.SCRATCH_BYTES), np.int64)

    def word(self, word: int) -> int:
        """One word of the context."""
        return int(self.context.words[word])

    def count(self, word: int) -> int:
        """A counter over all kinds."""
        return sum(self.context.counter(word, kind) for kind in words.KINDS)

    def decode(self, frame: bytes, behind: bytes = bytes(READ_PADDING_BYTES)) -> tuple[int, Rows]:
        """(status, record) of one payload; `behind` is what follows it in memory, and must stay as it is."""
        memory = np.frombuffer(bytearray(frame + behind), np.uint8)
        rows = np.frombuffer(bytearray(b"\xa5" * 2 * ROW_BYTES), empty_rows(1).dtype)
        rows["checksum"] = 0
        address = int(memory.ctypes.data)
        status = decode_one(self.context.address, address, address + len(frame), int(rows.ctypes.data))
        assert memory.tobytes() == frame + behind, "the decoder must not write to its input"
        assert rows[1:].tobytes()[:-4] == b"\xa5" * (ROW_BYTES - 4), "nor behind its record"
        return status, rows[:1]

    def decode_all(self, frames: Sequence[bytes]) -> tuple[NDArray[np.uint8], Rows]:
        """(statuses, records) of many payloads that lie in memory without a gap."""
        texts = np.frombuffer(b"".join(frames) + bytes(128), np.uint8)
        return self.decode_at(texts, np.cumsum([0, *map(len, frames)]))

    def decode_at(self, texts: NDArray[np.uint8], ends: NDArray[np.int64]) -> tuple[NDArray[np.uint8], Rows]:
        """The same for bytes and int64 offsets, one more than there are payloads."""
        count = len(ends) - 1
        offsets = np.ascontiguousarray(ends, np.int64)
        statuses, rows = np.zeros(count, np.uint8), empty_rows(count)
        odd = decode_many(
            self.context.address,
            int(texts.ctypes.data),
            int(offsets.ctypes.data),
            count,
            int(rows.ctypes.data),
            int(statuses.ctypes.data),
        )
        assert odd == np.count_nonzero(statuses != OK)
        return statuses, rows

    def expected(self, frame: bytes) -> Rows | None:
        """The oracle's record; None when it refuses the frame or the symbol is unknown."""
        event: Event | None = event_of(frame)
        if event is None or event.symbol not in self.ids:
            return None
        return row_of(event, self.ids)

    def read(
        self,
        stream: bytes,
        *,
        line: int = 0,
        rows_max: int = ROWS_MAX,
        sequence: int = 1,
        recv_ns: int = RECV_NS,
        behind: bytes = bytes(READ_PADDING_BYTES),
    ) -> Read:
        """One call of read_frames over `stream`."""
        memory = np.frombuffer(bytearray(stream + behind), np.uint8)
        start = int(memory.ctypes.data)
        rows = empty_rows(rows_max + 1)
        written = read_frames(
            self.context.address,
            start,
            start + len(stream),
            recv_ns,
            line,
            int(rows.ctypes.data),
            rows_max,
            sequence,
            EPOCH,
        )
        assert memory.tobytes() == stream + behind, "the kernel must not write to its input"
        assert rows[rows_max:].tobytes() == bytes(ROW_BYTES), "nor behind its room"
        side = None
        if self.word(words.SIDE_OPCODE):
            at = self.word(words.SIDE_ADDRESS) - start
            payload = stream[at : at + self.word(words.SIDE_LENGTH)]
            assert self.word(words.SIDE_OPCODE) & words.SIDE_FOUND
            side = (self.word(words.SIDE_OPCODE) & 0xFF, payload, self.word(words.SIDE_STATUS))
        consumed = self.word(words.POSITION) - start
        error, needed = self.word(words.PROTOCOL_ERROR), self.word(words.NEEDED_BYTES)
        return Read(rows[:written], consumed, side, error, needed)

    def admit(self, rows: Rows, sequence: int = 1) -> Rows:
        """The records that the arbiter accepts, sealed; `rows` may get LATE set."""
        out = empty_rows(len(rows))
        source = np.ascontiguousarray(rows)
        written = admit_rows(
            self.context.address,
            int(source.ctypes.data),
            len(source),
            int(out.ctypes.data),
            sequence,
            EPOCH,
        )
        return out[:written]


@dataclass
class Arena:
    """Reads as a socket brings them: what is left of one is put before the next."""

    room: Room
    rows_max: int = ROWS_MAX
    line: int = 0
    rest: bytes = b""
    rows: list[Rows] = field(default_factory=list)
    sides: list[tuple[int, bytes, int]] = field(default_factory=list)
    order: list[Any] = field(default_factory=list)
    """Ids of records, and first bytes of frames that were set aside as strings, in their order."""
    written: int = 0
    error: int = 0

    def feed(self, chunk: bytes) -> None:
        """One socket read, with as many kernel calls as it takes."""
        self.rest += chunk
        while not self.error:
            found = self.room.read(
                self.rest, line=self.line, rows_max=self.rows_max, sequence=1 + self.written
            )
            assert found.side is None or found.error == 0
            self.rest = self.rest[found.consumed :]
            self.rows.append(found.rows)
            self.order += found.rows["id"].tolist()
            self.written += len(found.rows)
            self.error = found.error
            if found.side is not None:
                self.sides.append(found.side)
                self.order.append(hex(found.side[0]))
            elif len(found.rows) < self.rows_max:
                break

    @property
    def all_rows(self) -> Rows:
        """Everything that was written, as it would stand on the tape."""
        return np.concatenate(self.rows)
