"""Sets of ids that are kept as ranges: a few pieces, however many ids they hold. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

Range = tuple[int, int]
"""First and last id, both inclusive."""


class IdRanges:
    """Disjoint ranges in rising order; neighbours are one piece. Costs O(log n) to look, O(n) to change."""

    __slots__ = ("firsts", "lasts")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self.firsts: list[int] = []
        self.lasts: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def __bool__(self) -> bool:
        return bool(self.firsts)

    def __contains__(self, identifier: int) -> bool:
        at = bisect_left(self.lasts, identifier)
        return at < len(self.firsts) and self.firsts[at] <= identifier

    @property
    def total(self) -> int:
        """Number of ids."""
        return sum(self.lasts) - sum(self.firsts) + len(self.firsts)

    def pieces(self) -> list[Range]:
        """All ranges."""
        return list(zip(self.firsts, self.lasts, strict=True))

    def within(self, first: int, last: int) -> list[Range]:
        """The parts of the set that lie in first..last."""
        begin, end = bisect_left(self.lasts, first), bisect_right(self.firsts, last)
        return [(max(first, self.firsts[at]), min(last, self.lasts[at])) for at in range(begin, end)]

    def count(self, first: int, last: int) -> int:
        """Number of ids of the set in first..last."""
        return sum(high - low + 1 for low, high in self.within(first, last))

    def touches(self, first: int, last: int) -> bool:
        """True when an id of first..last is in the set."""
        return bisect_left(self.lasts, first) < bisect_right(self.firsts, last)

    def add(self, first: int, last: int) -> None:
        """Put first..last in; what is in already stays."""
        if first > last:
            return
        begin, end = bisect_left(self.lasts, first - 1), bisect_right(self.firsts, last + 1)
        if begin < end:
            first, last = min(first, self.firsts[begin]), max(last, self.lasts[end - 1])
        self.firsts[begin:end] = [first]
        self.lasts[begin:end] = [last]

    def take(self, first: int, last: int) -> int:
        """Take first..last out; returns how many ids of it were in."""
        if first > last:
            return 0
        begin, end = bisect_left(self.lasts, first), bisect_right(self.firsts, last)
        if begin >= end:
            return 0
        taken = self.count(first, last)
        low, high = self.firsts[begin], self.lasts[end - 1]
        left = [(low, first - 1)] if low < first else []
        right = [(last + 1, high)] if high > last else []
        self.firsts[begin:end] = [piece[0] for piece in left + right]
        self.lasts[begin:end] = [piece[1] for piece in left + right]
        return taken


def minus(ranges: Iterable[Range], without: IdRanges) -> list[Range]:
    """The parts of rising `ranges` that are not in `without`."""
    left: list[Range] = []
    for first, last in ranges:
        at = first
        for low, high in without.within(first, last):
            if at < low:
                left.append((at, low - 1))
            at = high + 1
        if at <= last:
            left.append((at, last))
    return left
