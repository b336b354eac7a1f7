"""How the tape is, for health and metrics."""

import os
from collections.abc import Iterator

from tradeback.model.clock import Clock
from tradeback.ops.health import ComponentHealth
from tradeback.ops.metrics import Family, unlabelled
from tradeback.tape.writer import Tape


class TapeHealth:
    """Looks at one tape."""

    def __init__(self, tape: Tape, clock: Clock) -> None:
        self._tape = tape
        self._since_ns = clock.wall_ns()
        self.refusal: str | None = None
        """Why the tape refuses records; set by whoever appends."""

    def health(self) -> ComponentHealth:
        """Down while records are refused, degraded when the keeper has trouble or damage was found."""
        counters = self._tape.counters
        trouble = counters.keeper_error_last or counters.damage_last or None
        state = "down" if self.refusal else "degraded" if trouble else "ok"
        return ComponentHealth("tape", state, self._since_ns, self.refusal or trouble)  # type: ignore[arg-type]

    def collect(self) -> Iterator[Family]:
        """Position, size, syncs, errors."""
        tape, counters = self._tape, self._tape.counters
        gauges = (
            ("position", tape.next_sequence - 1, "Sequence of the newest record."),
            ("oldest", tape.oldest_sequence, "Sequence of the oldest record that is held."),
            ("synced", counters.synced_sequence, "Records before this sequence survive a power loss."),
            ("bytes", tape.bytes_held, "Bytes of all segments."),
            ("segments", counters.segments, "Segment files."),
        )
        counts = (
            ("syncs", counters.syncs, "Syncs to the disk."),
            ("rolls", counters.rolls, "Segments begun."),
            ("write_errors", counters.write_errors, "Appends that the disk refused."),
            ("keeper_errors", counters.keeper_errors, "Errors of the thread that syncs, seals and retires."),
        )
        yield from unlabelled("tradeback_tape_", "gauge", gauges)
        yield from self._collect_disk()
        yield from unlabelled("tradeback_tape_", "counter", counts)

    def _collect_disk(self) -> Iterator[Family]:
        """The file system that holds the tape."""
        try:
            disk = os.statvfs(self._tape.folder)
        except OSError:
            return
        sizes = (
            ("free_bytes", disk.f_bavail * disk.f_frsize, "Room on the file system of the tape."),
            ("size_bytes", disk.f_blocks * disk.f_frsize, "Size of that file system."),
        )
        yield from unlabelled("tradeback_disk_", "gauge", sizes)
