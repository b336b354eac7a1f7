"""The clock as an argument: pure code never asks the time, it is told."""

from typing import Protocol


class Clock(Protocol):
    """Two clocks: the wall's for stamps that others read, the steady one for intervals."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970, UTC. May step."""

    def steady_ns(self) -> int:
        """Nanoseconds from an arbitrary start. Never steps back."""
