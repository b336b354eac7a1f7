"""Records and small tapes for the tests of the tape."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from tradeback.model.config import TapeConfig
from tradeback.model.record import AGG, QUOTE, ROW_BYTES, TRADE, Rows, empty_rows, seal
from tradeback.tape.segment import HEADER_BYTES, list_segments
from tradeback.tape.writer import Tape

START_US = 1_700_000_000_000_000


def make_rows(count: int, first_id: int = 1, symbols: int = 5) -> Rows:
    """Unsealed records whose every field follows from the id, so that any mix-up shows."""
    rows = empty_rows(count)
    ids = np.arange(first_id, first_id + count)
    rows["id"] = ids
    rows["symbol_id"] = ids * 7919 % symbols + 1
    rows["kind"] = np.array([TRADE, QUOTE, TRADE, AGG], np.uint8)[ids * 31 % 4]
    rows["exchange_us"] = np.where(rows["kind"] == QUOTE, 0, START_US + ids * 1_000)
    rows["recv_ns"] = (START_US + ids * 1_000 + 250) * 1_000
    rows["price"] = ids / 8
    rows["quantity"] = ids * 3
    rows["ask"] = ids * 5 + 1
    rows["ask_quantity"] = ids % 11
    rows["flags"] = ids % 4 << 6 | ids % 16
    return rows


def config(rows_per_segment: int = 10, hot_rows: int = 64, **other: Any) -> TapeConfig:
    """A tape whose segments hold `rows_per_segment` records."""
    return TapeConfig(hot_rows=hot_rows, segment_bytes=HEADER_BYTES + ROW_BYTES * rows_per_segment, **other)


def put_in_ring(tape: Tape, rows: Rows) -> None:
    """Seal `rows` into the next slots, as a kernel does, without committing them."""
    slot = tape.next_sequence & (tape.hot_rows - 1)
    tape.rows[slot : slot + len(rows)] = rows
    seal(tape.rows[slot : slot + len(rows)], tape.next_sequence, tape.epoch)


def kill(tape: Tape) -> None:
    """End a tape as kill -9 would: nothing noted, nothing flushed by us, the lock released."""
    keeper = tape._keeper
    keeper._stopping = True
    keeper._wake.set()
    keeper._thread.join()
    for entry in (*keeper._sealed, keeper._current):
        os.close(entry.descriptor)
    for spare in keeper._spares:
        os.close(spare.descriptor)  # the file stays, as after a kill
    os.close(tape._lock_descriptor)
    tape._closed = True


def without_checksum(rows: Rows) -> Rows:
    """A copy with checksum 0, to compare contents."""
    copy = rows.copy()
    copy["checksum"] = 0
    return copy


def same(found: Rows, wanted: Rows) -> bool:
    """Equal in everything but the checksum, bit for bit."""
    return without_checksum(found).tobytes() == without_checksum(wanted).tobytes()


def read_all(source: Any) -> dict[tuple[int, int], bytes]:
    """Every record that a reader can see: (epoch, sequence) -> its bytes."""
    seen: dict[tuple[int, int], bytes] = {}
    sequence = source.oldest_sequence
    while True:
        epoch, rows = source.read_with_epoch(sequence, 1_000)
        if not len(rows):
            return seen
        raw = rows.tobytes()
        for at in range(len(rows)):
            seen[epoch, sequence + at] = raw[ROW_BYTES * at : ROW_BYTES * (at + 1)]
        sequence += len(rows)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Name and content of every file."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def restore(folder: Path, files: dict[str, bytes]) -> None:
    """Make `folder` hold exactly these files."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def flip(path: Path, byte: int) -> None:
    """Damage a file: turn one bit of this byte round."""
    raw = bytearray(path.read_bytes())
    raw[byte] ^= 1
    path.write_bytes(raw)


def newest_file(folder: Path) -> Path:
    """The segment file that is written."""
    return list_segments(folder)[-1].path
