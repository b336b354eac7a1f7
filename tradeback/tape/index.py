"""The index of a sealed segment: which rows belong to which symbol, and the times the segment spans.

Built once when a segment is sealed (stable argsort by symbol, so a symbol's rows stay in tape order)
and written beside it. An index that is missing or damaged costs a rebuild, never an answer.
"""

import mmap
import struct
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tradeback.model.errors import TapeError
from tradeback.model.record import count_intact
from tradeback.tape.segment import CHECK_ROWS, Segment, replace_file

MAGIC: Final = b"TBKINDX\n"
VERSION: Final = 1
HEADER_BYTES: Final = 128

_HEADER: Final = struct.Struct("<8sHHIQIIqqqqI")
"""magic, version, header bytes, epoch, first, rows, symbols, exchange min max, receive min max, body crc."""
_CRC: Final = struct.Struct("<I")
_NONE_MIN: Final = (1 << 63) - 1
_NONE_MAX: Final = -(1 << 63)


@dataclass(frozen=True, slots=True)
class Times:
    """The span of a segment; min > max when no record has such a time."""

    exchange_us_min: int = _NONE_MIN
    exchange_us_max: int = _NONE_MAX
    recv_ns_min: int = _NONE_MIN
    recv_ns_max: int = _NONE_MAX

    def overlap(self, from_us: int | None, to_us: int | None) -> bool:
        """Whether a record with either time in [from_us, to_us) may exist."""
        low = min(self.exchange_us_min, self.recv_ns_min // 1_000)
        high = max(self.exchange_us_max, self.recv_ns_max // 1_000)
        return (from_us is None or high >= from_us) and (to_us is None or low < to_us)


@dataclass(frozen=True, slots=True)
class Index:
    """Row numbers by symbol of one segment."""

    rows: int
    times: Times
    symbol_ids: NDArray[np.uint16]
    """Symbols that occur, rising, shape (symbols,)."""
    offsets: NDArray[np.uint32]
    """Where each symbol's rows begin in `row_numbers`, shape (symbols + 1,)."""
    row_numbers: NDArray[np.uint32]
    """Rows of the first symbol in tape order, then of the second, ..., shape (rows,)."""

    def rows_of(self, symbol_id: int) -> NDArray[np.uint32]:
        """Row numbers of one symbol in tape order; empty when it does not occur."""
        place = int(np.searchsorted(self.symbol_ids, symbol_id))
        if place == len(self.symbol_ids) or self.symbol_ids[place] != symbol_id:
            return self.row_numbers[:0]
        return self.row_numbers[self.offsets[place] : self.offsets[place + 1]]


def build_index(segment: Segment) -> Index:
    """Verify the segment, read in slices (small peak memory), and sort its rows by symbol.

    Raises TapeError for a damaged record: an indexed segment is one whose records were all good.
    """
    count = segment.row_count()
    symbols = np.empty(count, np.uint16)
    exchange_min, exchange_max, recv_min, recv_max = _NONE_MIN, _NONE_MAX, _NONE_MIN, _NONE_MAX
    for start in range(0, count, CHECK_ROWS):
        rows = segment.load(start, min(CHECK_ROWS, count - start))
        good = count_intact(rows, segment.first + start, segment.epoch)
        if good < min(CHECK_ROWS, count - start):
            raise TapeError(f"record {segment.first + start + good} in {segment.path} is damaged")
        symbols[start : start + len(rows)] = rows["symbol_id"]
        exchange_us = rows["exchange_us"][rows["exchange_us"] != 0]
        if len(exchange_us):
            exchange_min = min(exchange_min, int(exchange_us.min()))
            exchange_max = max(exchange_max, int(exchange_us.max()))
        recv_min = min(recv_min, int(rows["recv_ns"].min()))
        recv_max = max(recv_max, int(rows["recv_ns"].max()))
    order = np.argsort(symbols, kind="stable").astype(np.uint32)
    symbol_ids, starts = np.unique(symbols[order], return_index=True)
    offsets = np.append(starts, count).astype(np.uint32)
    return Index(count, Times(exchange_min, exchange_max, recv_min, recv_max), symbol_ids, offsets, order)


def write_index(segment: Segment, index: Index) -> None:
    """Write the index beside the segment, atomically. Raises OSError."""
    body = (
        index.offsets.astype("<u4").tobytes()
        + index.row_numbers.astype("<u4").tobytes()
        + index.symbol_ids.astype("<u2").tobytes()
    )
    times = index.times
    head = _HEADER.pack(
        MAGIC, VERSION, HEADER_BYTES, segment.epoch, segment.first, index.rows, len(index.symbol_ids),
        times.exchange_us_min, times.exchange_us_max, times.recv_ns_min, times.recv_ns_max,
        zlib.crc32(body),
    ).ljust(HEADER_BYTES - _CRC.size, b"\0")  # fmt: skip
    replace_file(segment.index_path, head + _CRC.pack(zlib.crc32(head)) + body)


def read_times(segment: Segment) -> Times | None:
    """Only the spans, from the index file's header; None when there is no good index."""
    try:
        with segment.index_path.open("rb", buffering=0) as file:
            head = _unpack(file.read(HEADER_BYTES) or b"", segment)
    except FileNotFoundError:
        return None
    return head[0] if head is not None and head[1] == segment.row_count() else None


def read_index(segment: Segment) -> Index | None:
    """The index as written, mapped; None when it is missing, damaged, or not of this segment as it is."""
    try:
        with segment.index_path.open("rb", buffering=0) as file:
            raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, ValueError):  # ValueError: the file is empty
        return None
    head = _unpack(raw[:HEADER_BYTES], segment)
    if head is None:
        return None
    times, rows, symbols, crc = head
    body = memoryview(raw)[HEADER_BYTES:]
    if len(body) != 4 * (symbols + 1) + 4 * rows + 2 * symbols or zlib.crc32(body) != crc:
        return None
    if rows != segment.row_count():
        return None
    raw.madvise(mmap.MADV_DONTNEED)  # checked once; only the pages that queries touch stay in memory
    offsets = np.frombuffer(body, "<u4", symbols + 1)
    row_numbers = np.frombuffer(body, "<u4", rows, 4 * (symbols + 1))
    symbol_ids = np.frombuffer(body, "<u2", symbols, 4 * (symbols + 1 + rows))
    return Index(rows, times, symbol_ids, offsets, row_numbers)


def _unpack(head: bytes, segment: Segment) -> tuple[Times, int, int, int] | None:
    """Times, rows, symbols and body crc, when the header is whole and of this segment."""
    if len(head) < HEADER_BYTES:
        return None
    (crc,) = _CRC.unpack_from(head, HEADER_BYTES - _CRC.size)
    if crc != zlib.crc32(head[: HEADER_BYTES - _CRC.size]):
        return None
    magic, version, header_bytes, epoch, first, rows, symbols, *times, body_crc = _HEADER.unpack_from(head)
    if (magic, version, header_bytes) != (MAGIC, VERSION, HEADER_BYTES):
        return None
    if (epoch, first) != (segment.epoch, segment.first):
        return None
    return Times(*times), rows, symbols, body_crc
