"""When a client that reads too slowly is waited for, and when it is given up. Pure.

Three rungs (wire.md section 4): live, lagging (served when it drains: version 1 conflated, version 2 every
trade and the latest quotes), gone. A lagging client may stay as long as it takes something now and then
and the tape still holds in memory what it missed.
"""

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What to do with a lagging client."""

    WAIT = "wait"
    STUCK = "it took nothing for too long"
    BEHIND = "the tape no longer holds in memory what it missed"


@dataclass(slots=True)
class LagWatch:
    """Progress of one lagging client. `unsent`: bytes waiting for it, in our buffer and the kernel's."""

    since_s: float
    unsent: int

    def judge(self, now_s: float, unsent: int, lag_max_s: float, *, behind: bool) -> Verdict:
        """Look again. Anything taken since the last look starts the clock anew."""
        if unsent < self.unsent:
            self.since_s = now_s
        self.unsent = unsent
        if behind:
            return Verdict.BEHIND
        if now_s - self.since_s >= lag_max_s:
            return Verdict.STUCK
        return Verdict.WAIT
