"""Where bars of a series may be lacking: spans of slots of which nothing proves what traded there. Pure."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tradeback.derive.layout import NO_FIRST_ID, NO_ID, Bars

JOIN_SLOTS: Final = 200
"""Spans closer together than this become one: one page of klines answers them all."""


class Span(NamedTuple):
    """Unix seconds, the end exclusive."""

    from_s: int
    to_s: int


def linked(rows: Bars) -> NDArray[np.bool_]:
    """Of each bar but the last: does the tape prove that no trade lies between it and the next?"""
    last, first = rows["last_id"][:-1], rows["first_id"][1:]
    known = (last != NO_ID) & (first != NO_FIRST_ID)
    return np.asarray(known & (last + known == first), bool)


def lacking(rows: Bars, complete: NDArray[np.bool_], slot_s: int, from_s: int, to_s: int) -> list[Span]:
    """Spans within [from_s, to_s), ascending, in which a bar is missing or not complete.

    `rows`: the series' bars in there, ascending, and of each whether it is complete. Slots without a bar
    are known to be empty only where the bars beside them are linked by trade ids.
    """
    from_s, to_s = from_s + -from_s % slot_s, to_s - to_s % slot_s
    if from_s >= to_s:
        return []
    begins = rows["slot_us"] // 1_000_000
    ends = begins + slot_s
    holes = np.flatnonzero((ends[:-1] < begins[1:]) & ~linked(rows))
    doubtful = np.flatnonzero(~complete)
    first, last = (int(begins[0]), int(ends[-1])) if len(rows) else (to_s, to_s)
    found = [(from_s, first), (last, to_s)]
    found += zip(ends[holes].tolist(), begins[holes + 1].tolist(), strict=True)
    found += zip(begins[doubtful].tolist(), ends[doubtful].tolist(), strict=True)
    cut = sorted((max(begin, from_s), min(end, to_s)) for begin, end in found)
    return join([Span(*span) for span in cut if span[0] < span[1]], JOIN_SLOTS * slot_s)


def join(spans: list[Span], distance_s: int) -> list[Span]:
    """Ascending spans, those that are no further apart than this as one."""
    joined: list[Span] = []
    for span in spans:
        if joined and span.from_s - joined[-1].to_s <= distance_s:
            joined[-1] = Span(joined[-1].from_s, max(joined[-1].to_s, span.to_s))
        else:
            joined.append(span)
    return joined
