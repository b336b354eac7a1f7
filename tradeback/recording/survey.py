"""What a recording holds: counts, time range, connections, holes. The work behind `record --check`.

Two kinds of holes are told: spans in which a connection was not up (marks), and ids that no line has
(trades and aggTrades of a symbol rise by one). What only one line missed is no hole of the recording.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tradeback.recording.format import BEGIN, CONNECTED, DROPPED, END, LOST, ODD, parse_mark
from tradeback.recording.reading import Line, Source, is_mark, read_lines

_STREAM = re.compile(rb'\{"stream":"([^"]+)@(trade|aggTrade)"')
_IDS = {"trade": re.compile(rb'"t":(\d+)'), "aggTrade": re.compile(rb'"a":(\d+)')}
HOLES_MAX = 1_000
"""Holes that are listed of each stream; all are counted."""
Progress = Callable[[Source, int], None]
"""Called now and then with the source and the frames since the last call."""
_STEP = 10_000


@dataclass
class Runs:
    """Ids as runs of consecutive ones, in order of arrival."""

    runs: list[list[int]] = field(default_factory=list)

    def add(self, number: int) -> None:
        """One more id; what the last run holds already changes nothing."""
        if self.runs:
            last = self.runs[-1]
            if number == last[1] + 1:
                last[1] = number
                return
            if last[0] <= number <= last[1]:
                return
        self.runs.append([number, number])

    def merged(self) -> list[tuple[int, int]]:
        """Disjoint runs in order of id."""
        found: list[list[int]] = []
        for low, high in sorted(map(tuple, self.runs)):
            if found and low <= found[-1][1] + 1:
                found[-1][1] = max(found[-1][1], high)
            else:
                found.append([low, high])
        return [(low, high) for low, high in found]

    def holes(self) -> list[tuple[int, int]]:
        """(first, last) of the ids that are missing between the lowest and the highest."""
        runs = self.merged()
        return [(before[1] + 1, after[0] - 1) for before, after in pairwise(runs)]


@dataclass
class Connection:
    """One source."""

    name: str
    files: int
    frames: int = 0
    frame_bytes: int = 0
    disk_bytes: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    steps_back: int = 0
    """Frames whose receive time is before that of the frame before: the clock was set."""
    connects: int = 0
    dropped: int = 0
    odd: int = 0
    away: list[tuple[int, int | None, str]] = field(default_factory=list)
    """(from, to or None, why): the connection was not up."""
    endings: list[str] = field(default_factory=list)
    """How each file ended: rotated, stopped, killed; `open` for one without an end."""


@dataclass
class Survey:
    """A whole recording."""

    connections: list[Connection] = field(default_factory=list)
    ids: dict[str, Runs] = field(default_factory=dict)
    """By stream name, over all lines."""

    @property
    def missing(self) -> dict[str, list[tuple[int, int]]]:
        """The holes of every stream that has any."""
        found = {name: runs.holes() for name, runs in sorted(self.ids.items())}
        return {name: holes for name, holes in found.items() if holes}

    def as_json(self) -> dict[str, Any]:
        """For machines; ids and times as numbers."""
        return {
            "frames": sum(one.frames for one in self.connections),
            "bytes": sum(one.frame_bytes for one in self.connections),
            "disk_bytes": sum(one.disk_bytes for one in self.connections),
            "dropped": sum(one.dropped for one in self.connections),
            "connections": [vars(one) for one in self.connections],
            "streams": {
                name: {
                    "first_id": runs.merged()[0][0],
                    "last_id": runs.merged()[-1][1],
                    "missing": sum(last - first + 1 for first, last in runs.holes()),
                    "holes": runs.holes()[:HOLES_MAX],
                }
                for name, runs in sorted(self.ids.items())
            },
        }


def survey(sources: Sequence[Source], progress: Progress = lambda source, frames: None) -> Survey:
    """Read everything once."""
    found = Survey()
    for source in sources:
        one = Connection(source.name, len(source.files))
        one.disk_bytes = sum(file.stat().st_size for file in source.files)
        found.connections.append(one)
        unreported = 0
        for line in read_lines(source):
            if is_mark(line):
                _note(one, line)
                continue
            _count(one, line, found.ids)
            unreported += 1
            if unreported == _STEP:
                progress(source, unreported)
                unreported = 0
        progress(source, unreported)
        if source.ours and len(one.endings) and one.endings[-1] == "":
            one.endings[-1] = "open"
    return found


def _count(one: Connection, line: Line, ids: dict[str, Runs]) -> None:
    one.frames += 1
    one.frame_bytes += len(line.body)
    if one.first_ns is None:
        one.first_ns = line.recv_ns
    elif one.last_ns is not None and line.recv_ns < one.last_ns:
        one.steps_back += 1
    one.last_ns = line.recv_ns
    stream = _STREAM.match(line.body)
    if stream is None:
        return
    kind = stream[2].decode()
    number = _IDS[kind].search(line.body, stream.end())
    if number is not None:
        ids.setdefault(f"{stream[1].decode()}@{kind}", Runs()).add(int(number[1]))


def _note(one: Connection, line: Line) -> None:
    fields = parse_mark(line.body)
    event = fields["event"] if fields is not None else ""
    if fields is None:
        one.odd += 1
    elif event == BEGIN:
        if one.endings and one.endings[-1] == "":
            one.endings[-1] = "open"
        one.endings.append("")
    elif event == END and one.endings:
        one.endings[-1] = str(fields.get("why", ""))
        if one.endings[-1] != "rotated":
            # A killed recorder's end is written by the next one, perhaps much later.
            killed = one.endings[-1] == "killed" and one.last_ns is not None
            one.away.append((one.last_ns if killed else line.recv_ns, None, one.endings[-1]))  # type: ignore[arg-type]
    elif event == CONNECTED:
        one.connects += 1
        if one.away and one.away[-1][1] is None:
            since_ns, _, why = one.away[-1]
            one.away[-1] = (since_ns, line.recv_ns, why)
    elif event == LOST:
        if not one.away or one.away[-1][1] is not None:
            one.away.append((line.recv_ns, None, str(fields.get("reason", ""))))
    elif event == DROPPED:
        one.dropped += int(fields.get("frames", 0))
    elif event == ODD:
        one.odd += 1
