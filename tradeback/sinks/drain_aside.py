"""Rows that a store will never take: counted, and set aside in a file of bounded size."""

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import orjson

from tradeback.model.record import KIND_NAMES
from tradeback.sinks.drain_ports import Batch
from tradeback.stores.ports import Position

ASIDE_BYTES_MAX = 4 << 20
"""The file's size at which it becomes the one before (`.1`), which is dropped."""
REASON_CHARS_MAX = 300


class SetAside:
    """JSON lines in `path`, one per row: why, where on the tape, and the row itself.

    Rows at or before the last one set aside are not taken again, so a batch that is repeated counts once.
    A disk that refuses is logged; the count still goes up.
    """

    def __init__(self, path: Path, log: logging.Logger, bytes_max: int = ASIDE_BYTES_MAX) -> None:
        self.path, self._log, self._bytes_max = path, log, bytes_max
        self._through = Position(0, 0)
        self.count = 0
        """Rows set aside since the start."""
        self.last_reason: str | None = None

    def put(self, batch: Batch, rejected: Sequence[tuple[int, str]], wall_ns: int) -> int:
        """Take rows of `batch` by (index, reason); returns how many were new."""
        lines = []
        for index, reason in sorted(rejected):
            sequence = batch.first_sequence + index
            if batch.epoch == self._through.epoch and sequence <= self._through.sequence:
                continue
            self._through = Position(batch.epoch, sequence)
            self.last_reason = reason[:REASON_CHARS_MAX]
            lines.append(_line(batch, index, sequence, self.last_reason, wall_ns))
        self.count += len(lines)
        if lines:
            self._append(b"".join(lines))
        return len(lines)

    def _append(self, text: bytes) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                if self.path.stat().st_size + len(text) > self._bytes_max:
                    os.replace(self.path, self.path.with_name(self.path.name + ".1"))
            with self.path.open("ab") as file:
                file.write(text[: self._bytes_max])
        except OSError as error:
            self._log.error("cannot set refused rows aside in %s: %s", self.path, error)


def _line(batch: Batch, index: int, sequence: int, reason: str, wall_ns: int) -> bytes:
    row = batch.rows[index]
    fields = {name: row[name].item() for name in row.dtype.names or () if name != "checksum"}
    fields["kind"] = KIND_NAMES.get(fields["kind"], fields["kind"])
    head = {"reason": reason, "epoch": batch.epoch, "sequence": sequence, "refused_ns": wall_ns}
    return orjson.dumps({**head, **fields}, option=orjson.OPT_APPEND_NEWLINE)
