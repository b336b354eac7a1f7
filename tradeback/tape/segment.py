"""Segment files: name, header, and reading records by sequence. docs/tape.md is the format's description.

A segment is a 64-byte header and then records; the record with sequence s starts at byte
64 + 64 * (s - first). Numbers are little endian. Reading is by `preadv`, not by mapping: the newest
segment may be cut while it is read, and a mapping of a file that shrinks kills the reader.
"""

import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from tradeback.model.errors import TapeError
from tradeback.model.record import ROW_BYTES, TICK, Rows, count_intact

MAGIC: Final = b"TBKTAPE\n"
VERSION: Final = 1
HEADER_BYTES: Final = 64
SUFFIX: Final = ".tape"
CHECK_ROWS: Final = 16_384
"""Records read and verified at once: 1 MiB, so that the temporaries stay in the processor's cache."""

_HEADER: Final = struct.Struct("<8sHHIQqI24x")
_CRC: Final = struct.Struct("<I")
_NAME: Final = re.compile(r"(\d{20})-([0-9a-f]{8})\.tape")


class Header(NamedTuple):
    """What the first 64 bytes of a segment say."""

    epoch: int
    first: int
    created_ns: int


def pack_header(header: Header) -> bytes:
    """The 64 bytes, crc last."""
    body = _HEADER.pack(MAGIC, VERSION, HEADER_BYTES, *header, ROW_BYTES)
    return body + _CRC.pack(zlib.crc32(body))


def unpack_header(raw: bytes) -> Header | None:
    """The header in `raw`, or None when it is torn, damaged, or of another format version."""
    if len(raw) < HEADER_BYTES:
        return None
    magic, version, header_bytes, epoch, first, created_ns, row_bytes = _HEADER.unpack_from(raw)
    (crc,) = _CRC.unpack_from(raw, HEADER_BYTES - _CRC.size)
    if crc != zlib.crc32(raw[: HEADER_BYTES - _CRC.size]):
        return None
    if (magic, version, header_bytes, row_bytes) != (MAGIC, VERSION, HEADER_BYTES, ROW_BYTES):
        return None
    return Header(epoch, first, created_ns)


def offset_of(rows: int) -> int:
    """The byte at which row number `rows` of a segment starts."""
    return HEADER_BYTES + ROW_BYTES * rows


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment file, known by its name. Opens the file for every call and keeps no descriptor."""

    path: Path
    epoch: int
    first: int

    @classmethod
    def named(cls, folder: Path, epoch: int, first: int) -> "Segment":
        """The segment of `folder` that begins at sequence `first` of `epoch`."""
        return cls(folder / f"{first:020d}-{epoch:08x}{SUFFIX}", epoch, first)

    @property
    def index_path(self) -> Path:
        """Where the index of the sealed segment lies."""
        return self.path.with_suffix(".index")

    def size(self) -> int:
        """Bytes of the file. FileNotFoundError when retention has removed it."""
        return self.path.stat().st_size

    def row_count(self) -> int:
        """Whole 64-byte slots in the file, intact or not."""
        return max(0, self.size() - HEADER_BYTES) // ROW_BYTES

    def header(self) -> Header | None:
        """The header, or None when it is not that of this segment."""
        with self.path.open("rb", buffering=0) as file:
            header = unpack_header(file.read(HEADER_BYTES) or b"")
        if header is None or (header.epoch, header.first) != (self.epoch, self.first):
            return None
        return header

    def load(self, row: int, rows_max: int) -> Rows:
        """Up to `rows_max` records from row number `row` on, unverified; fewer at the file's end.

        Raises TapeError when the header is not that of this segment.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            header = unpack_header(os.pread(descriptor, HEADER_BYTES, 0))
            if header is None or (header.epoch, header.first) != (self.epoch, self.first):
                raise TapeError(f"{self.path} has a damaged header: run `tradeback tape verify`")
            held = (os.fstat(descriptor).st_size - HEADER_BYTES) // ROW_BYTES
            rows = np.empty(max(0, min(rows_max, held - row)), TICK)
            if len(rows):
                got = os.preadv(descriptor, [rows.view("u1").data], offset_of(row))
                rows = rows[: got // ROW_BYTES]
            return rows
        finally:
            os.close(descriptor)

    def count_intact(self, start: int = 0) -> int:
        """How many records are intact from row `start` up to the first bad one, plus `start`."""
        row = start
        while True:
            rows = self.load(row, CHECK_ROWS)
            good = count_intact(rows, self.first + row, self.epoch)
            row += good
            if good < CHECK_ROWS:
                return row


def list_segments(folder: Path) -> tuple[Segment, ...]:
    """The segments of `folder` in order of their first sequence, by name alone."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match:
                found.append(Segment(folder / entry.name, int(match[2], 16), int(match[1])))
    found.sort(key=lambda segment: segment.first)
    return tuple(found)


def write_all(descriptor: int, data: memoryview | bytes) -> None:
    """Write every byte; raises OSError, with a part of the bytes possibly written."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make created, renamed and removed names durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Write `path` so that a reader finds the old content or the new, never a part, even after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    sync_folder(path.parent)


def create_segment(segment: Segment, created_ns: int, temporary: Path) -> int:
    """Create the file with its header under `temporary`; returns the descriptor, open for appending.

    The caller renames it to `segment.path` when it becomes the current one, so that a segment with a
    torn header is never seen under its name.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o644)
    try:
        write_all(descriptor, pack_header(Header(segment.epoch, segment.first, created_ns)))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
