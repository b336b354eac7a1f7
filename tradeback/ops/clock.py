"""The machine's own clock. Made once, where the engine is wired."""

import time


class SystemClock:
    """Clock protocol over the standard library."""

    wall_ns = staticmethod(time.time_ns)
    steady_ns = staticmethod(time.monotonic_ns)
