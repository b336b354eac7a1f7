"""The machine's own clock. Made once, where the engine is wired."""

import time


class SystemClock:
    """Clock protocol over the standard library."""

    def wall_ns(self) -> int:
        return time.time_ns()

    def steady_ns(self) -> int:
        return time.monotonic_ns()
