"""Stretches of the tape as version 2 frames from which every record comes back, bit by bit.

What travels between nodes. Any decoder of version 2 reads such a frame: its trades, quotes and gaps are
those of the feed, `sequence` is the position behind the stretch. Its first entry is a long one that clients
skip (0x0A); it holds what the others leave out: times of receipt, update ids of quotes, which line brought a
record, and the records that are no trade, quote or gap. docs/wire.md, "Frames between nodes", describes it.

The rest is told as a difference: whoever encodes decodes his own frame, makes records of what it says, and
sends what those lack. So no shape of record can come back wrong, and the records' checksums prove it.
"""

import struct
import zlib
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tradeback.model.record import (
    GAP,
    QUOTE,
    ROW_BYTES,
    STAND_IN,
    TICK,
    TRADE,
    Rows,
    checksums,
    empty_rows,
    seal,
)
from tradeback.model.symbols import Symbol
from tradeback.wire import v2_layout as at
from tradeback.wire.v2 import Decoder
from tradeback.wire.v2_batch import BatchEncoder
from tradeback.wire.v2_decode import Reader
from tradeback.wire.v2_encode import frame_of, sane_time, varint
from tradeback.wire.v2_frame import Frame, WireError

TAG_REST: Final = 0x0A
"""The long entry; always the first of its frame."""
PIECE_ROWS: Final = 512
"""Most records of one frame; fewer where they do not fit."""
PIECE_ROWS_MAX: Final = 4_096
"""What a decoder takes."""
_HEAD: Final = struct.Struct("<HHIQ")
"""Records, grids, CRC-32 of the records' checksums, which bytes of a record differ anywhere."""
_GRID: Final = np.dtype([("symbol_id", "<u2"), ("price_digits", "u1"), ("quantity_digits", "u1")])
_FIXED = struct.Struct("<IBBIQ")
_LEVEL: Final = 1
_NO_CHECKSUM: Final = np.uint64(0xFFFFFFFF)
_PACKED_MAX: Final = PIECE_ROWS_MAX * (ROW_BYTES + 1) + at.SYMBOL_IDS * _GRID.itemsize


class Piece(NamedTuple):
    """One frame and the stretch of the tape that it holds: records `first` up to, not including, `end`."""

    epoch: int
    first: int
    end: int
    frame: bytes


class Stretch(NamedTuple):
    """Records as they stand on the tape: `rows[0]` at sequence `first` of `epoch`."""

    epoch: int
    first: int
    rows: Rows

    @property
    def end(self) -> int:
        """Sequence behind them."""
        return self.first + len(self.rows)


def position_of(frame: bytes) -> tuple[int, int]:
    """(epoch, sequence behind the stretch) of a frame, without decoding it. WireError when it is none."""
    if len(frame) < at.HEADER_FIXED_BYTES + 3 or frame[4] != at.VERSION:
        raise WireError("no frame of version 2")
    _, _, _, epoch, _ = _FIXED.unpack_from(frame)
    return epoch, Reader(frame, at.HEADER_FIXED_BYTES, len(frame)).varint()


class ExactCodec:
    """Both directions. `attach` first, in a thread: it loads kernels. One caller at a time."""

    def __init__(self) -> None:
        self._encoder = BatchEncoder()
        self._own = Decoder(check_crc=False)
        self._decoder = Decoder()
        self._grids: dict[int, tuple[int, int]] = {}

    def attach(self) -> None:
        """Take the kernels."""
        self._encoder.attach()
        self._own.accelerate()
        self._decoder.accelerate()

    def learn(self, symbols: Iterable[Symbol]) -> None:
        """Whose records will be encoded, and their grids. Records of others are refused."""
        for symbol in symbols:
            grid = symbol.price_precision, symbol.quantity_precision
            if self._grids.get(symbol.id) != grid:
                self._grids[symbol.id] = grid
                self._encoder.learn(symbol.id, *grid)
                self._own.learn(symbol.id, *grid)

    def unknown(self, rows: Rows) -> set[int]:
        """Symbols of these records that `learn` was not told of."""
        return {int(number) for number in np.unique(rows["symbol_id"])} - self._grids.keys() - {0}

    def encode(self, rows: Rows, epoch: int, first: int) -> list[Piece]:
        """Sealed records of the tape as frames, in order. ValueError for a symbol that is not known."""
        missing = self.unknown(rows)
        if missing:
            raise ValueError(f"no grid is known of symbols {sorted(missing)}")
        pieces: list[Piece] = []
        waiting = [(start, min(start + PIECE_ROWS, len(rows))) for start in range(0, len(rows), PIECE_ROWS)][
            ::-1
        ]
        while waiting:
            start, end = waiting.pop()
            frame = self._frame(rows[start:end], epoch, first + start)
            if frame is None:
                middle = (start + end) // 2
                waiting += [(middle, end), (start, middle)]
            else:
                pieces.append(Piece(epoch, first + start, first + end, frame))
        return pieces

    def _frame(self, rows: Rows, epoch: int, first: int) -> bytes | None:
        """One frame; None when these are too many for one."""
        frames = self._encoder.frames(rows, epoch, first)
        if len(frames) > 1:
            return None
        end = first + len(rows)
        told, present = self._told(frames), _is_told(rows)
        if told is None or told.count != present.sum():
            recv_us = sane_time(int(rows["recv_ns"][-1]) // 1_000)
            frames = [frame_of(b"", 0, epoch=epoch, sequence=end, recv_us=recv_us, flags=at.FRAME_REPLAY)]
            told = self._own.decode(frames[0])
            present[:] = False
        entries = frames[0][_entries_at(frames[0]) :]
        rest = self._rest(rows, _guess(told, present, 0), present, epoch, first)
        frame = frame_of(
            bytes((TAG_REST,)) + varint(len(rest)) + rest + entries,
            told.count + 1,
            epoch=epoch,
            sequence=end,
            recv_us=told.recv_us,
            flags=told.flags,
        )
        return frame if len(frame) <= at.FRAME_BYTES_MAX else None

    def _told(self, frames: list[bytes]) -> Frame | None:
        """What the one frame says; None when there is none, or when it says what no decoder takes."""
        try:
            return self._own.decode(frames[0]) if frames else None
        except WireError:
            return None

    def _rest(self, rows: Rows, guess: Rows, present: NDArray[np.bool_], epoch: int, first: int) -> bytes:
        """The payload of the long entry."""
        order = _order(guess)
        steps = (_words(rows) - _words(guess))[order]
        steps[1:] -= steps[:-1].copy()
        columns = steps.view(np.uint8).reshape(len(rows), ROW_BYTES)
        used = columns.any(axis=0)
        numbers = sorted({int(number) for number in np.unique(rows["symbol_id"])} - {0})
        grids = np.array([(number, *self._grids[number]) for number in numbers], _GRID)
        packed = b"".join((grids.tobytes(), np.packbits(present).tobytes(), columns.T[used].tobytes()))
        mask = int(np.packbits(used, bitorder="little").view("<u8")[0])
        digest = zlib.crc32(checksums(rows, first, epoch).tobytes())
        return _HEAD.pack(len(rows), len(grids), digest, mask) + zlib.compress(packed, _LEVEL)

    def decode(self, frame: bytes) -> Stretch:
        """The records of a frame, sealed. WireError when it is damaged, or no frame of this kind."""
        if len(frame) < at.HEADER_FIXED_BYTES + 3 or zlib.crc32(memoryview(frame)[4:]) != int.from_bytes(
            frame[:4], "little"
        ):
            raise WireError("the CRC of a frame between nodes differs: damaged on the way")
        count, grids, present, digest, steps = _unpacked(_payload(frame))
        for number, price_digits, quantity_digits in grids.tolist():
            if self._decoder.grids.get(number) != (price_digits, quantity_digits):
                self._decoder.learn(number, price_digits, quantity_digits)
        told = self._decoder.decode(frame)
        if told.sequence <= count or told.count - 1 != int(present.sum()) or told.unknown != 1:
            raise WireError("a frame between nodes counts other records than it has")
        guess = _guess(told, present, 1)
        order = _order(guess)
        back = np.empty_like(order)
        back[order] = np.arange(count)
        words = _words(guess) + np.cumsum(steps, axis=0, dtype=np.uint64)[back]
        rows: Rows = np.ascontiguousarray(words).view(TICK).reshape(count)
        first = told.sequence - count
        seal(rows, first, told.epoch)
        if zlib.crc32(rows["checksum"].tobytes()) != digest:
            raise WireError("the records of a frame between nodes differ from those of the tape")
        return Stretch(told.epoch, first, rows)


def _entries_at(frame: bytes) -> int:
    """Where the entries of a frame begin."""
    reader = Reader(frame, at.HEADER_FIXED_BYTES, len(frame))
    for _ in range(3):
        reader.varint()
    return reader.place


def _payload(frame: bytes) -> bytes:
    """What the long entry of a frame holds."""
    reader = Reader(frame, _entries_at(frame), len(frame))
    if reader.place >= reader.end or reader.byte() != TAG_REST:
        raise WireError("a frame without the rest of its records: made for clients, not for nodes")
    payload = reader.take(reader.varint())
    if len(payload) < _HEAD.size:
        raise WireError("the rest of a frame's records is cut")
    return payload


def _unpacked(
    payload: bytes,
) -> tuple[int, NDArray[np.void], NDArray[np.bool_], int, NDArray[np.uint64]]:
    """Records, grids, which records the frame tells, digest, and the differences in their order."""
    count, grid_count, digest, mask = _HEAD.unpack_from(payload)
    if not 0 < count <= PIECE_ROWS_MAX:
        raise WireError(f"a frame between nodes has 1 to {PIECE_ROWS_MAX} records, not {count}")
    used = np.unpackbits(np.frombuffer(mask.to_bytes(8, "little"), np.uint8), bitorder="little").view(
        np.bool_
    )
    sizes = grid_count * _GRID.itemsize, -(-count // 8), count * int(used.sum())
    unzip = zlib.decompressobj()
    try:
        packed = unzip.decompress(payload[_HEAD.size :], _PACKED_MAX)
    except zlib.error as error:
        raise WireError(f"the rest of a frame's records is damaged: {error}") from None
    if len(packed) != sum(sizes) or not unzip.eof:
        raise WireError("the rest of a frame's records has another length than it says")
    grids = np.frombuffer(packed[: sizes[0]], _GRID)
    bits = np.frombuffer(packed[sizes[0] :], np.uint8, sizes[1])
    present = np.unpackbits(bits, count=count).view(np.bool_)
    columns = np.zeros((ROW_BYTES, count), np.uint8)
    columns[used] = np.frombuffer(packed[sizes[0] + sizes[1] :], np.uint8).reshape(-1, count)
    steps = np.ascontiguousarray(columns.T).view("<u8")
    return count, grids, present, digest, steps


def _is_told(rows: Rows) -> NDArray[np.bool_]:
    """Which records have an entry of their own in the frame."""
    kind = rows["kind"]
    told: NDArray[np.bool_] = ((kind == TRADE) | (kind == QUOTE) | (kind == GAP)) & (rows["symbol_id"] != 0)
    return told


def _words(rows: Rows) -> NDArray[np.uint64]:
    """Records as eight words each, without the checksum."""
    words = np.ascontiguousarray(rows).view("<u8").reshape(-1, ROW_BYTES // 8).copy()
    words[:, 7] &= _NO_CHECKSUM
    return words


def _order(guess: Rows) -> NDArray[np.intp]:
    """Records of one kind and symbol side by side: their differences are small."""
    return np.argsort(guess["kind"].astype(np.int64) << 16 | guess["symbol_id"], kind="stable")


def _guess(told: Frame, present: NDArray[np.bool_], before: int) -> Rows:
    """The records as far as a frame tells them; `before`: entries in front of the first record."""
    rows = empty_rows(len(present))
    rows["recv_ns"] = told.recv_us * 1_000
    where = np.flatnonzero(present)
    found = told.trades
    if len(found):
        place = where[found["place"].astype(np.int64) - before]
        stands = (found["flags"] & STAND_IN) != 0
        for name in ("exchange_us", "id", "price", "quantity", "symbol_id"):
            rows[name][place] = found[name]
        rows["kind"][place], rows["flags"][place] = TRADE, found["flags"] & 15
        rows["ask"][place[stands]] = found["first_id"][stands]
        rows["ask_quantity"][place[stands]] = found["stands_for"][stands]
    found = told.quotes
    if len(found):
        place = where[found["place"].astype(np.int64) - before]
        for name, source in (
            ("price", "bid"), ("quantity", "bid_quantity"), ("ask", "ask"),
            ("ask_quantity", "ask_quantity"), ("symbol_id", "symbol_id"),
        ):  # fmt: skip
            rows[name][place] = found[source]
        rows["kind"][place], rows["flags"][place] = QUOTE, found["flags"] & 15
    found = told.gaps
    if len(found):
        place = where[found["place"].astype(np.int64) - before]
        for name, source in (
            ("exchange_us", "exchange_us"), ("id", "first_id"), ("ask", "last_id"), ("price", "missing"),
            ("quantity", "state"), ("ask_quantity", "stream"), ("symbol_id", "symbol_id"),
        ):  # fmt: skip
            rows[name][place] = found[source]
        rows["recv_ns"][place] = found["noted_us"] * 1_000
        rows["kind"][place] = GAP
    return rows
