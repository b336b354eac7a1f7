"""Staying inside the exchange's limits: a token bucket that says how long to wait. Pure: told the time."""


class Budget:
    """`capacity` tokens, refilled evenly over `period_s`. Tokens are taken in advance: the balance may
    go below zero, and the waiting time says when it is made good. So waiters are served in order."""

    def __init__(self, capacity: float, period_s: float) -> None:
        self._capacity = float(capacity)
        self._per_ns = capacity / (period_s * 1e9)
        self._tokens = float(capacity)
        self._at_ns: int | None = None

    def take(self, now_ns: int, cost: float = 1.0) -> float:
        """Take `cost` tokens; returns the seconds to wait before acting, 0.0 when there were enough."""
        if self._at_ns is not None:
            gained = (now_ns - self._at_ns) * self._per_ns
            self._tokens = min(self._capacity, self._tokens + gained)
        self._at_ns = now_ns
        self._tokens -= cost
        return max(0.0, -self._tokens / self._per_ns / 1e9)

    def block(self, now_ns: int, seconds: float) -> None:
        """Nothing may be taken for `seconds` (the exchange said Retry-After)."""
        self.take(now_ns, 0.0)
        self._tokens = min(self._tokens, -seconds * 1e9 * self._per_ns)
