"""Staying inside the exchange's limits: how long to wait before the next request. Pure: told the time."""

from collections import deque


class Budget:
    """At most `limit` units of cost in any window of `period_s` seconds, exactly.

    A place is taken in advance: `take` says when the caller's turn comes, and whoever asks later comes
    later. A token bucket would not do: one that holds `limit` and refills in a period lets twice the limit
    through in its first period.
    """

    def __init__(self, limit: float, period_s: float) -> None:
        self._limit = float(limit)
        self._period_ns = int(period_s * 1e9)
        self._places: deque[tuple[int, float]] = deque()
        """(when, cost) of what still weighs on the window, in order; the last ones may lie ahead."""
        self._used = 0.0
        self._blocked_ns = 0

    def take(self, now_ns: int, cost: float = 1.0) -> float:
        """Take `cost`; returns the seconds to wait before acting, 0.0 when it may be done now.

        A cost above the limit waits until nothing else weighs on the window.
        """
        at_ns = max(now_ns, self._blocked_ns)
        if self._places:
            at_ns = max(at_ns, self._places[-1][0])
        self._forget(at_ns)
        while self._places and self._used + cost > self._limit:
            at_ns = max(at_ns, self._places[0][0] + self._period_ns)
            self._forget(at_ns)
        self._places.append((at_ns, cost))
        self._used += cost
        return (at_ns - now_ns) / 1e9

    def block(self, now_ns: int, seconds: float) -> None:
        """Nothing may be done for `seconds` (the exchange said Retry-After)."""
        self._blocked_ns = max(self._blocked_ns, now_ns + int(seconds * 1e9))

    def blocked_s(self, now_ns: int) -> float:
        """Seconds until a block ends: for those who got their turn before it came."""
        return max(0, self._blocked_ns - now_ns) / 1e9

    def _forget(self, at_ns: int) -> None:
        """Drop what has left the window that ends at `at_ns`."""
        while self._places and self._places[0][0] + self._period_ns <= at_ns:
            self._used -= self._places.popleft()[1]
        if not self._places:
            self._used = 0.0
