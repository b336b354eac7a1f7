"""Clocks of the exchange that are not the machine's: faster ones, and ones that are wrong. Pure."""

from tradeback.model.clock import Clock

_MILLION = 1_000_000


class ScaledClock:
    """`inner`, `rate` times as fast from now on: at 1,000 a day passes in 86 seconds."""

    def __init__(self, inner: Clock, rate: float) -> None:
        if not rate > 0:
            raise ValueError(f"the clock's rate must be above 0, not {rate:g}")
        self._inner, self._rate = inner, rate
        self._steady_ns = inner.steady_ns()
        self._wall_ns = inner.wall_ns()

    def _passed_ns(self) -> int:
        return int((self._inner.steady_ns() - self._steady_ns) * self._rate)

    def wall_ns(self) -> int:
        """Nanoseconds since 1970; right only at the start."""
        return self._wall_ns + self._passed_ns()

    def steady_ns(self) -> int:
        """Nanoseconds, faster than the machine's."""
        return self._steady_ns + self._passed_ns()


class SkewedClock:
    """`inner`, ahead or behind by what `skew` says. The steady clock drifts with it but never steps."""

    def __init__(self, inner: Clock) -> None:
        self._inner = inner
        self._ahead_ns = 0
        self._drifted_ns = 0
        self._drift_ppm = 0.0
        self._since_ns = inner.steady_ns()

    def skew(self, ahead_ms: float, drift_ppm: float) -> int:
        """From now on `ahead_ms` before the true time, and `drift_ppm` us per second more.

        Returns the step of the wall clock in us.
        """
        before_ns = self.wall_ns()
        self._drifted_ns += self._drift_ns()
        self._since_ns = self._inner.steady_ns()
        self._ahead_ns = int(ahead_ms * _MILLION) - self._drifted_ns
        self._drift_ppm = drift_ppm
        return (self.wall_ns() - before_ns) // 1_000

    def _drift_ns(self) -> int:
        return int((self._inner.steady_ns() - self._since_ns) * self._drift_ppm / _MILLION)

    def wall_ns(self) -> int:
        """Nanoseconds since 1970, as the exchange believes."""
        return self._inner.wall_ns() + self._ahead_ns + self._drifted_ns + self._drift_ns()

    def steady_ns(self) -> int:
        """Nanoseconds from an arbitrary start, at the exchange's pace."""
        return self._inner.steady_ns() + self._drifted_ns + self._drift_ns()
