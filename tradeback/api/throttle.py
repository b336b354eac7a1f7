"""The brake on guessing passwords: growing pauses after failures, of a name, an address, and of both. Pure.

An attempt counts as failed from its beginning, so that a hundred at the same moment are not all free. One
that has to wait is not counted: whoever keeps knocking waits no longer than he must, and cannot lock out
others of his address for ever. The brake of a name alone, against many addresses that guess together, is
short, and does not hold for addresses from which this user has logged in before: nobody can lock a user out
of his own.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

ENTRIES_MAX = 20_000
"""Of each table."""


@dataclass(frozen=True, slots=True)
class Brake:
    """The first `free` failures cost nothing, then 1, 2, 4 s ... up to `longest_s`.

    Forgotten after `forget_s` without an attempt."""

    free: int
    longest_s: float
    forget_s: float = 3_600.0

    def pause_ns(self, failures: int) -> int:
        """How long after that many failures the next attempt may come."""
        over = failures - self.free
        return 0 if over < 0 else int(min(self.longest_s, 2.0 ** min(over, 30)) * 1e9)


PAIR = Brake(free=5, longest_s=900.0)
ADDRESS = Brake(free=30, longest_s=300.0)
NAME = Brake(free=50, longest_s=30.0)


class _Table:
    """Failures by key: how many, and when the last was."""

    def __init__(self, brake: Brake, entries_max: int) -> None:
        self._brake, self._entries_max = brake, entries_max
        self.held: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def wait_ns(self, key: str, now_ns: int) -> int:
        failures, last_ns = self._get(key, now_ns)
        return max(0, last_ns + self._brake.pause_ns(failures) - now_ns)

    def count(self, key: str, now_ns: int, by: int = 1) -> None:
        failures = max(0, self._get(key, now_ns)[0] + by)
        self.held[key] = failures, now_ns
        self.held.move_to_end(key)
        if len(self.held) > self._entries_max:
            self.held.popitem(last=False)

    def _get(self, key: str, now_ns: int) -> tuple[int, int]:
        failures, last_ns = self.held.get(key, (0, 0))
        forgotten = now_ns - last_ns > self._brake.forget_s * 1e9
        return (0, 0) if forgotten else (failures, last_ns)


class LoginThrottle:
    """`attempt` before a password is looked at, `succeeded` when it was right."""

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self.refused = 0
        self._pairs = _Table(PAIR, entries_max)
        self._addresses = _Table(ADDRESS, entries_max)
        self._names = _Table(NAME, entries_max)
        self._known: OrderedDict[str, None] = OrderedDict()
        """Pairs that have logged in."""
        self._entries_max = entries_max

    def attempt(self, name: str, address: str, now_ns: int) -> int:
        """0 to go on, else the whole seconds to wait. `now_ns`: the steady clock."""
        pair = f"{address} {name}"
        waits = [self._pairs.wait_ns(pair, now_ns), self._addresses.wait_ns(address, now_ns)]
        if pair not in self._known:
            waits.append(self._names.wait_ns(name, now_ns))
        if max(waits):
            self.refused += 1
            return math.ceil(max(waits) / 1e9)
        for table, key in ((self._pairs, pair), (self._addresses, address), (self._names, name)):
            table.count(key, now_ns)
        return 0

    def succeeded(self, name: str, address: str, now_ns: int) -> None:
        """The attempt was none at guessing."""
        pair = f"{address} {name}"
        self._pairs.held.pop(pair, None)
        self._addresses.count(address, now_ns, -1)
        self._names.count(name, now_ns, -1)
        self._known[pair] = None
        self._known.move_to_end(pair)
        if len(self._known) > self._entries_max:
            self._known.popitem(last=False)
