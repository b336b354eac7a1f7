"""When to try again: exponential, capped, with full jitter. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """The n-th failure in a row waits between half and all of min(first * 2^n, most)."""

    first_s: float
    most_s: float

    def delay_s(self, failures: int, chance: float) -> float:
        """Seconds to wait after `failures` (1 up) failures in a row; `chance` is uniform in [0, 1)."""
        exponent = min(max(failures, 1) - 1, 30)
        ceiling = min(self.most_s, self.first_s * float(2**exponent))
        return ceiling * (0.5 + 0.5 * chance)
