"""A fault script acted out: told of connections and of time, it changes frames and says what to break. Pure.

The server asks at four places: where frames leave a connection, where an answer of REST leaves, where a
handshake comes in, and a few times per second for what is to be done to connections.
"""

import random
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import inf
from typing import Literal, NamedTuple

from tradeback.sim.fault_frames import (
    ANNOUNCEMENT,
    REPLY,
    broken_bytes,
    chance_of,
    garbage,
    id_of,
    shuffle_streams,
    stream_of,
)
from tradeback.sim.fault_rest import RestFaults
from tradeback.sim.faults import BROKEN, GARBAGE, Fault, RestAnswer

Doing = Literal["reset", "close", "drop", "write", "announce", "clock"]
RECENT = 64
"""Frames of a connection that can be sent once more."""


class Act(NamedTuple):
    """What the server is to do now, to connection number `connection`."""

    doing: Doing
    connection: int = 0
    data: bytes = b""
    """To be written first."""
    code: int = 1001
    ahead_ms: float = 0.0
    drift_ppm: float = 0.0


class Refusal(NamedTuple):
    """How a handshake is refused."""

    status: int
    retry_after_s: float


@dataclass(slots=True)
class Link:
    """One open connection as the faults see it."""

    number: int
    opened_s: float
    streams: set[str] = field(default_factory=set)
    is_dead: bool = False
    """Half open: nothing leaves it any more."""
    held: dict[str, deque[tuple[float, bytes]]] = field(default_factory=dict)
    """Frames that wait, by stream, with the time at which they leave."""
    recent: deque[bytes] = field(default_factory=lambda: deque(maxlen=RECENT))
    aged: set[int] = field(default_factory=set)
    """Faults by age that have acted on it."""


class FaultPlay:
    """One run of a script. All times are seconds of one steady clock; 0 is the start of the market."""

    def __init__(self, faults: Sequence[Fault], seed: int = 0, symbols: Sequence[str] = ("BTCUSDT",)) -> None:
        self.faults = tuple(faults)
        self.seed = seed
        self.symbols = tuple(symbols)
        """Listed symbols, for garbage that looks real."""
        self.links: dict[int, Link] = {}
        numbered = list(enumerate(self.faults))
        self._frames = [(index, one) for index, one in numbered if one.group == "frames"]
        self._acts = [(index, one) for index, one in numbered if one.group in ("act", "clock")]
        self._refusals = [one for one in self.faults if one.group == "handshake"]
        self._rest = RestFaults([(index, one) for index, one in numbered if one.group == "rest"], seed)
        self._rng = random.Random(f"faults {seed}")
        self._due_s = {index: one.at_s for index, one in self._acts if one.age_s is None}
        self._picked: dict[int, set[int]] = {}
        self._later: list[tuple[float, Act]] = []
        self.now_s = 0.0
        self.life_rate = 1.0
        """Ages pass so much faster than the time."""
        self.hits = self._rest.hits
        """How often each kind has acted."""

    # What the server tells.

    def opened(self, number: int, streams: Iterable[str] = ()) -> None:
        """A connection has come up."""
        self.links[number] = Link(number, self.now_s, set(streams))

    def subscribed(self, number: int, streams: Iterable[str]) -> None:
        """It has asked for more streams."""
        if number in self.links:
            self.links[number].streams.update(streams)

    def closed(self, number: int) -> None:
        """It has gone."""
        self.links.pop(number, None)

    def is_deaf(self, number: int) -> bool:
        """Nothing of this connection is answered."""
        link = self.links.get(number)
        return link is not None and link.is_dead

    # Where things leave.

    def on_handshake(self) -> Refusal | None:
        """None lets the client in."""
        for fault in self._refusals:
            if self._is_open(fault) and self._rng.random() < fault.chance:
                self._note(fault)
                return Refusal(fault.status, fault.retry_after_s)
        return None

    def on_rest(self, path: str, query: Mapping[str, str], answer: RestAnswer, now_us: int) -> RestAnswer:
        """The answer that goes out instead of `answer`; `now_us` is the market's time."""
        return self._rest.on_rest(path, query, answer, self.now_s, now_us)

    def hides(self, path: str, symbol: str, number: int, time_us: int, start_us: int) -> bool:
        """Is a row in no page of REST, whenever one asks? `path` below /api/v3/."""
        return self._rest.hides(path, symbol, number, time_us, start_us)

    def on_frames(self, number: int, frames: list[bytes]) -> list[bytes]:
        """The complete frames that connection `number` gets instead of `frames`, which may be none."""
        link = self.links.get(number)
        if link is None:
            return frames
        if link.is_dead:
            return []
        active = [
            (index, one) for index, one in self._frames if self._is_open(one) and self._hits(index, one, link)
        ]
        if not active and not link.held:
            link.recent.extend(frames)
            return frames
        out = self._released(link)
        for data in frames:
            stream = stream_of(data)
            if stream == ANNOUNCEMENT:
                out.append(data)
                continue
            mine = [(index, one) for index, one in active if _is_of(one, stream)]
            if any(self._is_lost(index, one, link, stream, data) for index, one in mine):
                continue
            due_s = self._due(mine)
            if due_s > self.now_s or stream in link.held:
                queue = link.held.setdefault(stream, deque())
                queue.append((max(due_s, queue[-1][0] if queue else 0.0), data))
            else:
                out.append(data)
        worse = self._made_worse(out, link, active)
        link.recent.extend(out)
        return worse

    def first_clock(self) -> list[Act]:
        """What the exchange's clock shows from the very first moment on."""
        acts = []
        for index, fault in self._acts:
            if fault.kind == "clock" and fault.at_s == 0 and self._due_s[index] == 0:
                self._due_s[index] = inf
                acts += self._act(fault, [])
        return acts

    def on_time(self, now_s: float) -> list[Act]:
        """What is to be done now. Call often: this is also how the time is told."""
        self.now_s = now_s
        acts = [act for due_s, act in self._later if due_s <= now_s and act.connection in self.links]
        self._later = [(due_s, act) for due_s, act in self._later if due_s > now_s]
        for index, fault in self._acts:
            if fault.age_s is not None:
                for link in list(self.links.values()):
                    if (
                        index not in link.aged
                        and (now_s - link.opened_s) * self.life_rate >= fault.age_s
                        and self._is_meant(fault, link)
                    ):
                        link.aged.add(index)
                        acts += self._act(fault, [link])
                continue
            due_s = self._due_s[index]
            if now_s < due_s or (due_s >= fault.end_s and due_s > fault.at_s):
                continue
            links = [] if fault.kind == "clock" else self._pick(fault)
            if not links and fault.kind != "clock":
                continue
            acts += self._act(fault, links)
            self._due_s[index] = max(due_s + fault.every_s, now_s) if fault.every_s else inf
        return acts

    # How.

    def _note(self, fault: Fault) -> None:
        self.hits[fault.kind] = self.hits.get(fault.kind, 0) + 1

    def _is_open(self, fault: Fault) -> bool:
        return fault.at_s <= self.now_s < fault.end_s

    def _is_meant(self, fault: Fault, link: Link) -> bool:
        if isinstance(fault.connections, int) and fault.connections != link.number:
            return False
        return fault.stream == "*" or any(fnmatchcase(name, fault.stream) for name in link.streams)

    def _pick(self, fault: Fault) -> list[Link]:
        """The open connections that a fault means at this moment."""
        links = [link for link in self.links.values() if self._is_meant(fault, link) and not link.is_dead]
        if fault.connections == "one" and links:
            return [self._rng.choice(links)]
        if fault.connections == "half":
            groups: dict[frozenset[str], list[Link]] = {}
            for link in links:
                groups.setdefault(frozenset(link.streams), []).append(link)
            return [self._rng.choice(group) for group in groups.values()]
        return links

    def _hits(self, index: int, fault: Fault, link: Link) -> bool:
        """Is this connection one of those that a frame fault has chosen when its window opened?"""
        if fault.connections == "all":
            return True
        if isinstance(fault.connections, int):
            return fault.connections == link.number
        picked = self._picked.get(index)
        if not picked:
            picked = self._picked[index] = {one.number for one in self._pick(fault)}
        return link.number in picked

    def _act(self, fault: Fault, links: list[Link]) -> list[Act]:
        acts = []
        if fault.kind == "clock":
            self._note(fault)
            return [Act("clock", ahead_ms=fault.ms, drift_ppm=fault.drift_ppm)]
        for link in links:
            if self._rng.random() >= fault.chance:
                continue
            self._note(fault)
            if fault.kind == "half_open":
                link.is_dead = True
            elif fault.kind == "broken_bytes":
                how = self._rng.choice(BROKEN[1:]) if fault.how == "any" else fault.how
                acts.append(Act("write", link.number, broken_bytes(how, self._rng)))
            elif fault.kind == "shutdown":
                acts.append(Act("announce", link.number))
                self._later.append((self.now_s + fault.delay_s, Act("close", link.number, code=1001)))
            elif fault.how == "mid_frame":
                last = link.recent[-1] if link.recent else b"\x81\x7d"
                acts.append(Act("reset", link.number, last[: self._rng.randrange(1, max(2, len(last)))]))
            elif fault.how == "close":
                acts.append(Act("close", link.number, code=fault.code))
            else:
                acts.append(Act("drop" if fault.how == "drop" else "reset", link.number))
        return acts

    def _released(self, link: Link) -> list[bytes]:
        """Held frames whose time has come."""
        out = []
        for stream, queue in list(link.held.items()):
            while queue and queue[0][0] <= self.now_s:
                out.append(queue.popleft()[1])
            if not queue:
                del link.held[stream]
        return out

    def _is_lost(self, index: int, fault: Fault, link: Link, stream: str, data: bytes) -> bool:
        if fault.kind != "lose":
            return False
        number = id_of(data)
        if number < 0:
            lost = self._rng.random() < fault.chance
        else:
            # Runs of `count` ids share their fate.
            who = link.number if fault.how == "each" else 0
            lost = chance_of(self.seed, index, who, stream, number // fault.count) < fault.chance
        if lost:
            self._note(fault)
        return lost

    def _due(self, mine: list[tuple[int, Fault]]) -> float:
        """When a frame may leave."""
        due_s = 0.0
        for _, fault in mine:
            if fault.kind == "stall":
                due_s = max(due_s, fault.end_s)
            elif fault.kind == "delay" and self._rng.random() < fault.chance:
                due_s = max(due_s, self.now_s + fault.ms / 1_000)
            else:
                continue
            self._note(fault)
        return due_s

    def _made_worse(self, out: list[bytes], link: Link, active: list[tuple[int, Fault]]) -> list[bytes]:
        """Duplicates, another order, garbage between the good frames."""
        rng = self._rng
        for _, fault in active:
            if fault.kind == "reorder" and len(out) > 1 and rng.random() < fault.chance:
                out = shuffle_streams(out, rng)
                self._note(fault)
            elif fault.kind in ("duplicate", "garbage"):
                made: list[bytes] = []
                for data in out:
                    made.append(data)
                    if _is_of(fault, stream_of(data)) and rng.random() < fault.chance:
                        made += self._extra(fault, link, data)
                        self._note(fault)
                out = made
        return out

    def _extra(self, fault: Fault, link: Link, data: bytes) -> list[bytes]:
        rng = self._rng
        if fault.kind == "garbage":
            how = rng.choice(GARBAGE[1:]) if fault.how == "any" else fault.how
            return [garbage(how, rng, rng.choice(self.symbols), data)]
        if fault.count == 1:
            return [data]
        back = [one for one in link.recent if stream_of(one) not in (REPLY, ANNOUNCEMENT)]
        return back[-fault.count :]


def _is_of(fault: Fault, stream: str) -> bool:
    """Does a fault mean frames of this stream? Answers only when it says so."""
    if stream == REPLY:
        return fault.stream == REPLY
    return fault.stream == "*" or fnmatchcase(stream, fault.stream)
