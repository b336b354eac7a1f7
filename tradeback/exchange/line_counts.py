"""The numbers of one line, over all its connections."""

from dataclasses import dataclass


@dataclass(slots=True)
class LineCounts:
    """Plain integers; `keep` adds what a connection that ended has read."""

    reconnects: int = 0
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
