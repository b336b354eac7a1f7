"""How many requests a client may make: per client and group of routes, in a bounded table. Pure."""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

CLIENTS_MAX = 20_000
"""Entries of the table, about 200 bytes each; beyond it the one that was used least recently begins anew."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_s` in the long run, `burst` at once. A `per_s` of 0 is no limit."""

    per_s: float
    burst: int


class Rates:
    """One number per client and group: the time at which its allowance is full again."""

    def __init__(self, rates: Mapping[str, Rate], clients_max: int = CLIENTS_MAX) -> None:
        self.refused: dict[str, int] = dict.fromkeys(rates, 0)
        self._rates, self._clients_max = dict(rates), clients_max
        self._full_ns: OrderedDict[tuple[str, str], int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_ns)

    def take(self, group: str, client: str, now_ns: int) -> int:
        """0 when the request is served, else the whole seconds after which the next one will be.

        A refused request costs nothing, so whoever keeps asking is served at the rate all the same.
        `now_ns`: the steady clock.
        """
        rate = self._rates[group]
        if not rate.per_s:
            return 0
        key = group, client
        step_ns = int(1e9 / rate.per_s)
        full_ns = max(self._full_ns.get(key, 0), now_ns) + step_ns
        late_ns = full_ns - now_ns - rate.burst * step_ns
        if late_ns > 0:
            self.refused[group] += 1
            self._full_ns.move_to_end(key)
            return math.ceil(late_ns / 1e9)
        self._full_ns[key] = full_ns
        self._full_ns.move_to_end(key)
        if len(self._full_ns) > self._clients_max:
            self._full_ns.popitem(last=False)
        return 0
