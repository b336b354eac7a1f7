"""The other side of /metrics: one histogram out of the text, and what happened between two readings."""

import math
import re
from collections.abc import Mapping

Buckets = dict[float, float]
"""Upper bound in seconds -> values at or below it, cumulative. The last bound is infinity."""

_BOUND = re.compile(r'le="([^"]+)"')


def histogram(text: str, name: str, having: Mapping[str, str] | None = None) -> Buckets:
    """The buckets of histogram `name`, summed over all label sets that hold `having`. Empty if none."""
    wanted = [f'{label}="{value}"' for label, value in (having or {}).items()]
    found: Buckets = {}
    for line in text.splitlines():
        if not line.startswith(f"{name}_bucket{{") or not all(pair in line for pair in wanted):
            continue
        bound = _BOUND.search(line)
        if bound is not None:
            upper = float(bound[1])
            found[upper] = found.get(upper, 0.0) + float(line.rsplit(" ", 1)[1])
    return dict(sorted(found.items()))


def since(before: Buckets, now: Buckets) -> Buckets:
    """What `now` counted beyond `before`."""
    return {bound: count - before.get(bound, 0.0) for bound, count in now.items()}


def quantile(buckets: Buckets, share: float) -> float | None:
    """Seconds: upper bound of the bucket with the quantile `share` (0 to 1). None when empty; the largest
    finite bound when it lies beyond all."""
    finite = [bound for bound in buckets if math.isfinite(bound)]
    total = max(buckets.values(), default=0.0)
    if total <= 0 or not finite:
        return None
    return next((bound for bound in finite if buckets[bound] >= share * total), finite[-1])
