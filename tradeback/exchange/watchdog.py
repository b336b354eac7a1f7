"""Which stream has stalled: judged per symbol and kind, by its own rate and by what is known elsewhere. Pure.

A stream is `(line, stream)`: what one line brings of one symbol and kind. Two things are noticed.

- Another line, or REST, knows an id that this line has not brought, and `floor_s` later it still has brought
  nothing: the stream is stalled for sure.
- No line has brought anything for longer than the stream's own rate explains: a suspicion, nothing more. Who
  runs the watchdog asks the exchange and tells the answer by `learn`, `accuse` or `acquit`.

A quiet symbol is no fault: it is asked about ever more rarely. Nothing here looks at a clock: a message has
come when its count has moved between two steps, so a wall clock that is set disturbs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Flags = NDArray[np.bool_]
Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as too long. A silence is explained while it is below `factor` times the stream's mean
    interval, or twice its longest recent silence; always below the floor, never above the ceiling."""

    floor_s: float = 5.0
    ceiling_s: float = 900.0
    factor: float = 12.0
    rate_memory_s: float = 300.0
    """Time constant of the mean interval."""
    silence_memory_s: float = 3_600.0
    """Time constant in which the longest silence is forgotten."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The outcome of one step."""

    stalled: list[tuple[int, int]]
    """(line, stream) found stalled just now."""
    asks: list[int]
    """Streams to ask the exchange about, the most suspicious first."""


class Watchdog:
    """`lines` x `streams` arrays; call `step` about every `floor_s` / 5."""

    def __init__(self, lines: int, streams: int, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        shape = (lines, streams)
        self._counts: Int64s = np.zeros(shape, np.int64)
        self._ids: Int64s = np.zeros(shape, np.int64)
        self._arrived: Times = np.zeros(shape)
        """When the count moved last, s; 0 never."""
        self._mean: Times = np.zeros(shape)
        self._longest: Times = np.zeros(shape)
        self._since: Times = np.zeros(shape)
        """Since when the line's connection is subscribed, s; 0 while it is down."""
        self._baseline: Int64s = np.zeros(shape, np.int64)
        """Ids up to this were known before the connection came up: it owes only higher ones."""
        self._based: Flags = np.zeros(shape, np.bool_)
        """REST has told where a connection that has brought nothing yet begins."""
        self._evidence: Int64s = np.zeros(streams, np.int64)
        """Highest id known to exist."""
        self._behind: Times = np.zeros(shape)
        """Since when an id is owed and nothing came, s; 0: nothing is owed."""
        self.stalled: Flags = np.zeros(shape, np.bool_)
        self._ask_at: Times = np.zeros(streams)
        self._now = 0.0

    def rearrange(self, streams: Sequence[int] | Int64s, counts: Int64s) -> None:
        """Streams have come or gone: for each of now the index that it had, -1 for one that is new.

        `counts`: messages by line and stream as of now; what came of a new stream before is no news.
        """
        kept = np.array(streams, np.int64)
        old, new = kept[kept >= 0], np.flatnonzero(kept >= 0)

        def moved(array: NDArray[Any], start: NDArray[Any]) -> NDArray[Any]:
            start[..., new] = array[..., old]
            return start

        shape = (len(self._counts), len(kept))
        self._counts = moved(self._counts, counts.astype(np.int64))
        self._evidence = moved(self._evidence, np.zeros(len(kept), np.int64))
        self._ask_at = moved(self._ask_at, np.zeros(len(kept)))
        for name in ("_ids", "_baseline", "_arrived", "_mean", "_longest", "_since", "_behind", "_based",
                     "stalled"):  # fmt: skip
            array = getattr(self, name)
            setattr(self, name, moved(array, np.zeros(shape, array.dtype)))

    def step(self, now_ns: int, counts: Int64s, ids: Int64s, since_ns: Int64s) -> Findings:
        """Look at all streams.

        `counts` and `ids`: messages, rising, and last id by line and stream. `since_ns`: steady time since
        which the line's connection is subscribed, 0 while it is down. All steady times, and all positive.
        """
        now = now_ns / 1e9
        passed_s = now - self._now if self._now else 0.0
        self._now = now
        # A connection that is about to be replaced may bring lower ids beside the new one.
        ids = np.maximum(self._ids, ids)
        self._evidence = np.maximum(self._evidence, ids.max(axis=0))
        self._renew(since_ns / 1e9)
        moved = counts != self._counts
        self._note_rates(moved, counts - self._counts, passed_s)
        self._counts, self._ids = counts.copy(), ids
        self._arrived[moved] = now
        up = self._since > 0
        owed = up & ~moved & (self._evidence > np.maximum(self._ids, self._baseline))
        self._behind = np.where(owed, np.where(self._behind == 0, now, self._behind), 0.0)
        stalled = owed & (now - self._behind >= self.rules.floor_s)
        found = stalled & ~self.stalled
        self.stalled = stalled
        fresh = np.argwhere(found) if found.any() else ()
        return Findings([(int(line), int(stream)) for line, stream in fresh], self._asks(up))

    def _renew(self, since: Times) -> None:
        """Connections that came up since the last step owe only what is not known yet."""
        fresh = since != self._since
        self._since = since
        self._baseline = np.where(fresh, self._evidence, self._baseline)
        self._based &= ~fresh
        self._behind[fresh] = 0.0

    def _note_rates(self, moved: Flags, numbers: Int64s, passed_s: float) -> None:
        """Mean interval and longest silence of what came; a silence under way says nothing yet."""
        rules = self.rules
        self._longest *= exp(-passed_s / rules.silence_memory_s)
        # Silence while the line was down, and before the first message, is nobody's rate.
        known = moved & (self._arrived > 0) & (self._arrived >= self._since) & (numbers > 0)
        if not known.any():
            return
        silence = self._now - self._arrived[known]
        interval, mean = silence / numbers[known], self._mean[known]
        share = 1.0 - np.exp(-silence / rules.rate_memory_s)
        self._mean[known] = np.where(mean > 0, mean + share * (interval - mean), interval)
        self._longest[known] = np.maximum(self._longest[known], silence)

    # Suspicion.

    def explained_s(self) -> Times:
        """The longest silence, by line and stream, that the stream's own rate explains."""
        rules = self.rules
        explained = np.maximum(rules.factor * self._mean, 2.0 * self._longest)
        explained[self._mean == 0] = rules.ceiling_s
        return np.clip(explained, rules.floor_s, rules.ceiling_s)

    def _asks(self, up: Flags) -> list[int]:
        """Streams of which every line that is up is silent for too long, and nothing is proved yet."""
        silence = self._now - np.maximum(self._arrived, self._since)
        if silence.size == 0 or silence.max() <= self.rules.floor_s:
            return []  # every silence below the floor is explained: the usual case, and half of a step
        excess = np.where(up, silence / self.explained_s(), np.inf).min(axis=0)
        suspect = (
            up.any(axis=0) & (excess > 1) & ~(self._behind > 0).any(axis=0) & (self._now >= self._ask_at)
        )
        streams = np.flatnonzero(suspect)
        return [int(stream) for stream in streams[np.argsort(-excess[streams], kind="stable")]]

    def asked(self, stream: int) -> None:
        """The exchange is being asked about it: not again before its silence has grown by as much."""
        self._ask_at[stream] = self._now + float(self.explained_s()[:, stream].min())

    def ask_again(self, stream: int) -> None:
        """One answer was not enough: ask again as soon as another can be new."""
        self._ask_at[stream] = self._now + self.rules.floor_s

    def learn(self, stream: int, identifier: int) -> bool:
        """The exchange knows `identifier`. It is owed by lines that have brought anything since they came up;
        for the others the first such id is where they begin. False, and acquitted, when no line owes it."""
        begins = (self._arrived[:, stream] <= self._since[:, stream]) & ~self._based[:, stream]
        self._baseline[begins, stream] = np.maximum(self._baseline[begins, stream], identifier)
        self._based[begins, stream] = True
        self._evidence[stream] = max(int(self._evidence[stream]), identifier)
        owed = identifier > np.maximum(self._ids[:, stream], self._baseline[:, stream])
        if (owed & (self._since[:, stream] > 0)).any():
            return True
        self.acquit(stream)
        return False

    def accuse(self, stream: int) -> None:
        """Something newer than all that came is known to exist, though not by its id."""
        known = max(int(self._evidence[stream]), int(self._baseline[:, stream].max()))
        self._evidence[stream] = known + 1

    def acquit(self, stream: int) -> None:
        """The exchange has nothing newer: such a silence is this stream's way."""
        silence = self._now - np.maximum(self._arrived[:, stream], self._since[:, stream])
        up = self._since[:, stream] > 0
        self._longest[up, stream] = np.maximum(self._longest[up, stream], silence[up])
        # Without a rate of its own this silence is the first measure of it.
        self._mean[up, stream] = np.where(
            self._mean[up, stream] > 0, self._mean[up, stream], silence[up] / self.rules.factor
        )

    def forgive(self, now_ns: int) -> None:
        """Nobody listened until now (the tape refused, the process slept): this silence says nothing."""
        now = now_ns / 1e9
        self._now = now
        self._arrived[self._arrived > 0] = now
        self._since[self._since > 0] = now
        self._behind[:] = 0.0
