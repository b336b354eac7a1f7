"""What is on a tape, and whether it is whole: the work behind `tradeback tape info` and `verify`."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tradeback.model.record import KIND_NAMES, count_intact
from tradeback.tape.index import build_index, read_index
from tradeback.tape.reader import TapeReader
from tradeback.tape.recovery import CUT_SUFFIX
from tradeback.tape.segment import CHECK_ROWS, Segment, offset_of
from tradeback.tape.state import load_state

Progress = Callable[[Segment, int], None]
"""Called with a segment and how many of its records have just been looked at."""


def describe(reader: TapeReader, progress: Progress) -> dict[str, Any]:
    """Segments, epochs, sequences, times and records per kind, as plain JSON values. Reads everything."""
    kinds = np.zeros(256, np.int64)
    segments = []
    for segment in reader.segments():
        try:
            segments.append(_describe_segment(segment, kinds, progress))
        except FileNotFoundError:
            continue  # retired meanwhile
    state = load_state(reader.folder)
    return {
        "folder": str(reader.folder),
        "oldest_sequence": reader.oldest_sequence,
        "next_sequence": reader.next_sequence,
        "epochs": [{"epoch": f"{epoch:08x}", "first_sequence": first} for epoch, first in reader.epochs()],
        "ended_cleanly": state is not None and state.clean,
        "bytes": sum(int(each["bytes"]) for each in segments),
        "recv_ns_min": min((each["recv_ns_min"] for each in segments if each["records"]), default=None),
        "recv_ns_max": max((each["recv_ns_max"] for each in segments if each["records"]), default=None),
        "records": {
            KIND_NAMES.get(int(kind), f"kind {kind}"): int(kinds[kind]) for kind in np.flatnonzero(kinds)
        },
        "segments": segments,
        "cut_files": sorted(path.name for path in reader.folder.glob(f"*{CUT_SUFFIX}")),
    }


def _describe_segment(segment: Segment, kinds: Any, progress: Progress) -> dict[str, Any]:
    readable = segment.header() is not None
    count = segment.row_count() if readable else 0
    low, high = None, None
    for row in range(0, count, CHECK_ROWS):
        rows = segment.load(row, min(CHECK_ROWS, count - row))
        kinds += np.bincount(rows["kind"], minlength=256)
        low = min(int(rows["recv_ns"].min()), low if low is not None else 1 << 63)
        high = max(int(rows["recv_ns"].max()), high if high is not None else 0)
        progress(segment, len(rows))
    return {
        "file": segment.path.name,
        "epoch": f"{segment.epoch:08x}",
        "first_sequence": segment.first,
        "records": count,
        "bytes": segment.size(),
        "header_good": readable,
        "indexed": segment.index_path.exists(),
        "recv_ns_min": low,
        "recv_ns_max": high,
    }


def problems(reader: TapeReader, progress: Progress) -> Iterator[str]:
    """Verify every record, header and index, and that the sequences have no hole; one line per problem."""
    segments = reader.segments()
    following = [segment.first for segment in segments[1:]]
    for place, segment in enumerate(segments):
        try:
            if segment.header() is None:
                yield f"{segment.path.name} has a damaged header: its records cannot be read"
                continue
            held = segment.row_count()
            intact = _count_intact(segment, held, progress)
            if intact < held:
                yield (
                    f"record {segment.first + intact} fails its checksum: {segment.path.name} at byte "
                    f"{offset_of(intact)}; the {intact} records before it in this file are good"
                )
            if place == len(following):
                return
            if segment.first + held != following[place]:
                yield (
                    f"{segment.path.name} ends with record {segment.first + held - 1}, "
                    f"but the next file begins with {following[place]}"
                )
            if intact == held:
                yield from _index_problems(segment)
        except FileNotFoundError:
            continue  # retired meanwhile


def _count_intact(segment: Segment, held: int, progress: Progress) -> int:
    """Intact records up to the first bad one, which is looked at twice: it may be in writing."""
    row = 0
    while row < held:
        rows = segment.load(row, min(CHECK_ROWS, held - row))
        good = count_intact(rows, segment.first + row, segment.epoch)
        if good == 0:
            return row
        progress(segment, good)
        row += good
    return row


def _index_problems(segment: Segment) -> Iterator[str]:
    """An index that disagrees with its segment. A missing one is none: the writer makes it."""
    if not segment.index_path.exists():
        return
    written, built = read_index(segment), build_index(segment)
    if (
        written is None
        or written.times != built.times
        or not np.array_equal(written.symbol_ids, built.symbol_ids)
        or not np.array_equal(written.offsets, built.offsets)
        or not np.array_equal(written.row_numbers, built.row_numbers)
    ):
        yield (
            f"{segment.index_path.name} does not fit its segment: remove it, "
            "the writer makes it anew at its next start"
        )
