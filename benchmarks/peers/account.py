"""What came, held against what happened: lost, doubled, reported; latencies. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

Got = Sequence[tuple[str, int, int]]
"""(symbol, id, wall clock in ns), in order of arrival."""
Ranges = Sequence[tuple[str, int, int]]
"""(symbol, first id, last id)."""


@dataclass
class Account:
    """Ids rise by one per symbol, so every id between two that are known has happened."""

    lost: dict[str, list[int]] = field(default_factory=dict)
    """Ids that happened and never came, by symbol."""
    doubled: int = 0
    """How many times an id came that had come before."""
    received: int = 0
    """Different ids that came."""
    stood_in: int = 0
    """Ids that came as part of a stand-in only."""
    unseen: list[str] = field(default_factory=list)
    """Symbols of which nothing came."""

    @property
    def lost_count(self) -> int:
        """All lost ids."""
        return sum(map(len, self.lost.values()))


def account(got: Got, stood_in: Ranges, newest: Mapping[str, int]) -> Account:
    """From the first id that came of each symbol up to the `newest` that happened, both included.

    What came behind the newest still counts as received. Symbols of which nothing came have no
    first id; they are named as unseen.
    """
    found = Account()
    times: dict[str, Counter[int]] = {symbol: Counter() for symbol in newest}
    for symbol, number, _ in got:
        times[symbol][number] += 1
    stand_ins: dict[str, set[int]] = {symbol: set() for symbol in newest}
    for symbol, first, last in stood_in:
        stand_ins[symbol].update(range(first, last + 1))
    for symbol, last in newest.items():
        seen = times[symbol]
        found.received += len(seen)
        found.doubled += seen.total() - len(seen)
        if not seen:
            found.unseen.append(symbol)
            continue
        missing = [number for number in range(min(seen), last + 1) if number not in seen]
        found.stood_in += sum(number in stand_ins[symbol] for number in missing)
        missing = [number for number in missing if number not in stand_ins[symbol]]
        if missing:
            found.lost[symbol] = missing
    return found


def reported(gaps: Iterable[Sequence[Any]]) -> tuple[int, dict[str, int]]:
    """(different ids that the user was told of as missing, ids by the end state of their gap).

    `gaps`: symbol, state, first id, last id, still missing; in order. A later state of the same
    ids takes the place of an earlier one.
    """
    states: dict[tuple[str, int], str] = {}
    for symbol, state, first, last, _ in gaps:
        for number in range(first, last + 1):
            states[(symbol, number)] = state
    return len(states), dict(Counter(states.values()))


def longest_silence_s(got: Got) -> float:
    """The longest time without any trade, between the first and the last."""
    stamps = [at_ns for _, _, at_ns in got]
    return max((later - earlier for earlier, later in pairwise(stamps)), default=0) / 1e9


SLICES = 8
"""Parts of a run for its percentiles: a moment in which the machine stood still spoils one of them."""


@dataclass(frozen=True)
class Latency:
    """Percentiles in us: since the exchange's stamp, and since the simulator's send."""

    stamp_p50_us: float
    stamp_p99_us: float
    sent_p50_us: float
    sent_p99_us: float
    trades: int


def latency(got: Got, sent: Mapping[tuple[str, int], tuple[int, int]], begin_ns: int, end_ns: int) -> Latency:
    """Of every trade that came between two moments and whose sending is known.

    Percentiles are taken of each slice of that time; the result is their median. ValueError when
    there is no trade.
    """
    slices: list[list[tuple[int, int]]] = [[] for _ in range(SLICES)]
    for symbol, number, at_ns in got:
        noted = sent.get((symbol, number))
        if noted is not None and begin_ns <= at_ns < end_ns:
            place = (at_ns - begin_ns) * SLICES // (end_ns - begin_ns)
            slices[place].append((at_ns - noted[0] * 1_000, at_ns - noted[1]))
    found = [np.percentile(np.array(part) / 1e3, (50, 99), axis=0).ravel() for part in slices if part]
    if not found:
        raise ValueError("no latency was measured")
    stamp_p50, sent_p50, stamp_p99, sent_p99 = np.median(found, axis=0).tolist()
    return Latency(stamp_p50, stamp_p99, sent_p50, sent_p99, sum(map(len, slices)))
