"""A range of a tape as the source of a replay: its records in tape order, with their receive times."""

from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tradeback.model.errors import StartupError
from tradeback.model.record import AGG, LATE, QUOTE, REPAIRED, TRADE, Rows
from tradeback.tape.reader import TapeReader

BATCH_ROWS: Final = 4_096
_SLACK_NS: Final = 60_000_000_000
"""Receive times on a tape rise but for stand-ins and repairs, which carry earlier ones."""


class TapeSpan(NamedTuple):
    """Bounds, from inclusive, to exclusive; None: no bound. Receive times in ns, or sequences."""

    from_ns: int | None = None
    to_ns: int | None = None
    from_sequence: int | None = None
    to_sequence: int | None = None


def records(reader: TapeReader, span: TapeSpan, symbol_ids: Collection[int] | None = None) -> Iterator[Rows]:
    """The records of the range in tape order, in batches. Raises TapeError for damaged ones."""
    sequence = max(_first_sequence(reader, span), reader.oldest_sequence)
    end = reader.next_sequence
    if span.to_sequence is not None:
        end = min(end, span.to_sequence)
    wanted_ids = None if symbol_ids is None else np.fromiter(symbol_ids, np.uint16)
    while sequence < end:
        rows = reader.read(sequence, min(BATCH_ROWS, end - sequence))
        if not len(rows):
            return
        sequence += len(rows)
        if span.to_ns is not None and int(rows["recv_ns"].min()) >= span.to_ns + _SLACK_NS:
            return
        kept = rows[_mask(rows, span, wanted_ids)]
        if len(kept):
            yield kept


def runs(rows: Rows) -> Iterator[tuple[bool, Rows]]:
    """(needs arbitration, records) in tape order: `rows` cut where that changes.

    Records that a tape has were accepted once. Those that rest on what lay before the range (late and
    repaired trades) or were never arbitrated (seeds, gaps) are appended as they are.
    """
    usual = np.isin(rows["kind"], (TRADE, QUOTE, AGG)) & (rows["flags"] & (LATE | REPAIRED) == 0)
    cuts = np.flatnonzero(np.diff(usual)) + 1
    for part, is_usual in zip(np.split(rows, cuts), usual[[0, *cuts]], strict=True):
        yield bool(is_usual), part


def _mask(rows: Rows, span: TapeSpan, symbol_ids: NDArray[np.uint16] | None) -> NDArray[np.bool_]:
    wanted = np.ones(len(rows), np.bool_)
    if span.from_ns is not None:
        wanted &= rows["recv_ns"] >= span.from_ns
    if span.to_ns is not None:
        wanted &= rows["recv_ns"] < span.to_ns
    if symbol_ids is not None:
        wanted &= np.isin(rows["symbol_id"], symbol_ids)
    return wanted


def _first_sequence(reader: TapeReader, span: TapeSpan) -> int:
    """Where to begin: the given sequence, or the last segment that begins well before the given time."""
    if span.from_sequence is not None:
        oldest = reader.oldest_sequence
        if span.from_sequence < oldest:
            raise StartupError(
                f"records before {oldest} are gone from {reader.folder} by retention: "
                f"give --from seq:{oldest}"
            )
        return span.from_sequence
    first = reader.oldest_sequence
    if span.from_ns is not None:
        for segment in reader.segments():
            rows = segment.load(0, 1)
            if not len(rows) or int(rows["recv_ns"][0]) > span.from_ns - _SLACK_NS:
                break
            first = segment.first
    return first
