"""One file of a recording while it is written, and mending those that a killed recorder left behind.

The file is one gzip stream with a sync flush at every flush: all that was flushed can be read back, also
by others while it is written. It has a hidden name until it is complete. Used by one thread at a time.
"""

import os
import zlib
from pathlib import Path

from tradeback.recording.format import END, PART_SUFFIX, mark, part_name

GZIP_BITS = 31
"""zlib's window bits for 32 KiB with gzip's header and trailer."""
FLUSHED = b"\x00\x00\xff\xff"
"""The last bytes of a sync flush (RFC 1951, an empty stored block)."""
_LAST_BLOCK = b"\x03\x00"
"""An empty last block: ends a stream that stands at a sync flush."""
_CHUNK = 1 << 18


class PartFile:
    """A gzip file in the making. Every method may raise OSError and may be called again then.

    Compressed bytes that the disk has not taken are kept and go first the next time, so nothing is
    written twice or left out.
    """

    def __init__(self, folder: Path, name: str, level: int) -> None:
        self.path = folder / name
        self._part = folder / part_name(name)
        self._descriptor = os.open(self._part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, GZIP_BITS)
        self._out = bytearray()
        self._finished = False
        self._dirty = False
        self.disk_bytes = 0
        """Bytes that the disk has taken."""

    @property
    def bytes_made(self) -> int:
        """Compressed bytes so far, those included that the disk has not taken."""
        return self.disk_bytes + len(self._out)

    def compress(self, data: bytes) -> None:
        """Take `data`; nothing is written yet."""
        self._out += self._deflate.compress(data)
        self._dirty = True

    def write(self) -> None:
        """Write what has been compressed."""
        while self._out:
            count = os.write(self._descriptor, self._out)
            del self._out[:count]
            self.disk_bytes += count

    def flush(self) -> None:
        """Write everything taken so far so that it can be read back."""
        if self._dirty:
            self._out += self._deflate.flush(zlib.Z_SYNC_FLUSH)
            self._dirty = False
        self.write()

    def finish(self) -> None:
        """End the stream, sync the file, give it its name."""
        if not self._finished:
            self._out += self._deflate.flush(zlib.Z_FINISH)
            self._finished = True
        self.write()
        if self._descriptor >= 0:
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        _rename(self._part, self.path)

    def give_up(self) -> None:
        """Leave the file as the disk has it; `mend` makes the best of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def mend(folder: Path, time_ns: int) -> list[str]:
    """Complete all files in the making that nobody writes any more; returns a line for each.

    The caller holds the folder's lock. A file is cut at its last flush, ended properly, and given its name;
    one that was never flushed holds nothing and is removed. A kill in between leads to the same end.
    """
    notes = []
    for part in sorted(folder.glob(f".*{PART_SUFFIX}")):
        name = part.name[1 : -len(PART_SUFFIX)]
        raw = part.read_bytes()
        cut, crc, size = _last_flush(raw)
        if not cut:
            part.unlink()
            notes.append(f"{name} was never flushed: removed")
            continue
        descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, cut)
            os.lseek(descriptor, 0, os.SEEK_END)
            trailer = _LAST_BLOCK + crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
            os.write(descriptor, trailer + _gzip(mark(time_ns, END, why="killed")))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _rename(part, folder / name)
        notes.append(f"{name} was left by a recorder that was killed: completed, {len(raw) - cut} bytes cut")
    return notes


def _last_flush(raw: bytes) -> tuple[int, int, int]:
    """Where the last sync flush of a broken gzip stream ends, and crc and size of what is before it.

    0 when there is none. The four bytes may stand in compressed data by chance, so a place counts only
    if the stream can be ended there.
    """
    upto = len(raw)
    while True:
        place = raw.rfind(FLUSHED, 0, upto)
        if place < 0:
            return 0, 0, 0
        cut = place + len(FLUSHED)
        found = _ends_at(raw, cut)
        if found is not None:
            return cut, *found
        upto = cut - 1


def _ends_at(raw: bytes, cut: int) -> tuple[int, int] | None:
    """crc and size of the stream before `cut`, if an empty last block may stand there."""
    inflate = zlib.decompressobj(GZIP_BITS)
    view = memoryview(raw)
    crc = size = 0
    try:
        for start in range(0, cut, _CHUNK):
            data = inflate.decompress(view[start : min(start + _CHUNK, cut)])
            crc, size = zlib.crc32(data, crc), size + len(data)
        trailer = crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
        inflate.decompress(_LAST_BLOCK + trailer)
    except zlib.error:
        return None
    return (crc, size) if inflate.eof and not inflate.unused_data else None


def _gzip(data: bytes) -> bytes:
    deflate = zlib.compressobj(6, zlib.DEFLATED, GZIP_BITS)
    return deflate.compress(data) + deflate.flush()


def _rename(part: Path, path: Path) -> None:
    os.replace(part, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
