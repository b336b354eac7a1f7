"""The numbers of one line: plain integers over all its connections, and how it does against the other."""

from dataclasses import dataclass
from typing import Any

from tradeback.exchange.keeper import KeeperCounts
from tradeback.ingest.context import (
    LAG_BOUNDS_US,
    LINE_FILLS,
    LINE_LOSSES,
    LINE_REPEATS,
    IngestContext,
)
from tradeback.ops.metrics import Histogram


@dataclass(slots=True)
class LineCounts(KeeperCounts):
    """Plain integers; `keep` adds what a connection that ended has read."""

    stalls: int = 0
    """Streams that the watchdog found stalled."""
    pings: int = 0
    fallbacks: int = 0
    """Events decoded by the slow path."""
    malformed: int = 0
    """Frames dropped because neither path understands them."""
    odd_frames: int = 0
    broken: int = 0
    shutdowns: int = 0
    shadow_checked: int = 0
    shadow_differs: int = 0
    reads: int = 0
    bytes_read: int = 0

    def keep(self, reads: int, bytes_read: int) -> None:
        """Add a finished connection's reads."""
        self.reads += reads
        self.bytes_read += bytes_read


class Race:
    """One line's messages of one kind against the other line's, over all its connections.

    A line loses an id when another had brought it before; its lag is how much later it came then. Its lead
    is the other line's lag.
    """

    WORDS = (
        ("wins", 0, "Messages of this line that entered the tape."),
        ("losses", LINE_LOSSES, "Messages of this line whose id the other line had brought."),
        ("repeats", LINE_REPEATS, "Messages that two connections of this line brought, in a rollover."),
        (
            "fills",
            LINE_FILLS,
            "Messages of this line with ids that the other had lost or was late with.",
        ),
    )

    def __init__(self, context: IngestContext, line: int, kind: int) -> None:
        self._context, self.line, self.kind = context, line, kind

    def count(self, word: int) -> int:
        """One of WORDS; 0 stands for the wins."""
        if not word:
            return self._context.line_wins(self.line, self.kind)
        return self._context.line_counter(word, self.line, self.kind)

    def lag(self) -> Histogram:
        """How much later than the other line's, in us, over the kernel's own counts."""
        return _histogram(self._context, self.line, self.kind)

    def lead(self) -> Histogram:
        """How much earlier than the other line's: the lag of that one."""
        return _histogram(self._context, 1 - self.line, self.kind)

    def details(self) -> dict[str, Any]:
        """For /health/detailed; times in ms."""
        found: dict[str, Any] = {name: self.count(word) for name, word, _ in self.WORDS}
        return found | {"lag_ms": _summary(self.lag()), "lead_ms": _summary(self.lead())}


def _histogram(context: IngestContext, line: int, kind: int) -> Histogram:
    histogram = Histogram(LAG_BOUNDS_US)
    histogram.counts, histogram.sums = context.line_lag(line, kind)
    return histogram


def _summary(histogram: Histogram) -> dict[str, float] | None:
    """Quantiles; None while nothing was measured."""
    if not histogram.total:
        return None
    return {
        name: histogram.quantile_us(share) / 1_000
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
    }
