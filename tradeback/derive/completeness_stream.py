"""What is amiss in one stream of ids: holes, what stands in for them, suspicions and gaps. Pure."""

from collections.abc import Iterator
from typing import Any, Final

from tradeback.derive.completeness_gap import OPEN, UNREPAIRABLE, Gap, StreamState, Suspect
from tradeback.derive.completeness_ranges import IdRanges, Range, minus

UNREPAIRABLE_KEPT: Final = 256
"""Unrepairable gaps of a stream that are remembered; the claim to completeness begins behind older ones."""


class Stream:
    """A stream in which ids were jumped over at least once."""

    __slots__ = ("covered", "forgotten_below", "gaps", "holes", "suspects")

    def __init__(self) -> None:
        self.holes = IdRanges()
        """Ids that exist and are not on the tape."""
        self.covered = IdRanges()
        """Those of them for which a stand-in is on the tape."""
        self.suspects: list[Suspect] = []
        self.forgotten_below = 0
        """Where the claim to completeness was made to begin by this run."""
        self.gaps: dict[Range, Gap] = {}
        """Open and unrepairable ones by name, and those repaired just now."""

    @classmethod
    def of(cls, state: StreamState) -> "Stream":
        """As `kept` said it."""
        stream = cls()
        stream.holes, stream.covered = IdRanges(state.holes), IdRanges(state.covered)
        stream.suspects = [Suspect(*fields) for fields in state.suspects]
        return stream

    def kept(self) -> tuple[Any, Any, Any]:
        """Holes, covered and suspects as StreamState has them."""
        suspects = (
            (one.first, one.last, one.since_ns, one.before_us, one.after_us, one.sequence)
            for one in self.suspects
        )
        return tuple(self.holes.pieces()), tuple(self.covered.pieces()), tuple(suspects)

    def is_calm(self) -> bool:
        """Whether nothing may still come: no suspicion, no open gap."""
        return not self.suspects and all(gap.state != OPEN for gap in self.gaps.values())

    def unsettled(self) -> Iterator[tuple[int, int]]:
        """(first missing id, exchange time before it) of everything that may still come."""
        parts = [(one.first, one.last, one.before_us) for one in self.suspects]
        parts += [(*gap.name, gap.before_us) for gap in self.gaps.values() if gap.state == OPEN]
        for first, last, before_us in parts:
            missing = self.holes.within(first, last)
            if missing:
                yield missing[0][0], before_us

    def are_settled(self, missing: list[Range]) -> bool:
        """True when every range lies in an unrepairable gap."""
        settled = IdRanges(gap.name for gap in self.gaps.values() if gap.state == UNREPAIRABLE)
        return not minus(missing, settled)

    def forget_old(self) -> list[Gap]:
        """Drop unrepairable gaps beyond those kept, lowest ids first; returns them."""
        settled = sorted(gap.name for gap in self.gaps.values() if gap.state == UNREPAIRABLE)
        dropped = []
        for name in settled[: max(0, len(settled) - UNREPAIRABLE_KEPT)]:
            dropped.append(self.gaps.pop(name))
            self.holes.take(*name)
            self.covered.take(*name)
            self.forgotten_below = name[1] + 1
        return dropped
