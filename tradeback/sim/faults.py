"""What can go wrong with the exchange, when and where: the words of a fault script. Pure.

A script is a list of faults. Each has a kind, a window of time (`at`, `for`, counted from the start of the
market) or an age of the connection, and says which connections, streams or REST paths it hits.
`fault_play` acts it out, `fault_script` reads it from a file, `fault_seeds` invents one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import inf, isfinite
from typing import Any, Literal, NamedTuple

from tradeback.model.units import parse_duration

Group = Literal["act", "frames", "handshake", "rest", "clock"]
PICKS = ("all", "one", "half")
"""Which connections: every one; one at random; of those that carry the same streams one each."""
DURATIONS = {"at": "at_s", "for": "for_s", "age": "age_s", "every": "every_s", "delay": "delay_s",
             "retry_after": "retry_after_s", "ban": "ban_s"}  # fmt: skip
"""Keys that are written as durations -> fields in seconds."""


class FaultError(ValueError):
    """A fault script that cannot be acted out; says what is wrong, where, and how to mend it."""


class RestAnswer(NamedTuple):
    """An answer of REST before it goes out."""

    status: int
    body: bytes
    headers: dict[str, str]
    delay_s: float = 0.0
    """How long it is held back."""
    cut_bytes: int | None = None
    """After so many bytes of the body the connection breaks; -1: before the first byte of the answer."""


class Kind(NamedTuple):
    """One kind of fault: what it acts on, which keys it knows beside the common ones, ways of doing it."""

    group: Group
    keys: tuple[str, ...]
    ways: tuple[str, ...] = ()
    """Values of `how`, the default first."""


GARBAGE = (
    "any", "bad_json", "truncated", "binary", "bad_utf8", "unknown_event", "wrong_types", "unknown_symbol",
    "huge", "empty", "no_object", "stray_pong",
)  # fmt: skip
BROKEN = ("any", "reserved_opcode", "masked", "reserved_bit", "long_control", "endless", "too_big")
_ACT = ("at", "for", "every", "age", "chance", "connections", "stream")
_FRAMES = ("at", "for", "chance", "connections", "stream")
_REST = ("at", "for", "chance", "path")

KINDS: Mapping[str, Kind] = {
    "cut": Kind("act", (*_ACT, "how", "code"), ("reset", "close", "drop", "mid_frame")),
    "half_open": Kind("act", _ACT),
    "shutdown": Kind("act", (*_ACT, "delay")),
    "broken_bytes": Kind("act", (*_ACT, "how"), BROKEN),
    "stall": Kind("frames", ("at", "for", "connections", "stream")),
    "lose": Kind("frames", (*_FRAMES, "how", "count"), ("same", "each")),
    "duplicate": Kind("frames", (*_FRAMES, "count")),
    "delay": Kind("frames", (*_FRAMES, "ms")),
    "reorder": Kind("frames", _FRAMES),
    "garbage": Kind("frames", (*_FRAMES, "how"), GARBAGE),
    "refuse": Kind("handshake", ("at", "for", "chance", "status", "retry_after")),
    "rest_slow": Kind("rest", (*_REST, "ms")),
    "rest_error": Kind("rest", (*_REST, "status")),
    "rest_garbage": Kind("rest", (*_REST, "how"), ("not_json", "truncated", "html", "shape", "empty")),
    "rest_cut": Kind("rest", (*_REST, "how"), ("body", "reset")),
    "rest_lag": Kind("rest", (*_REST, "ms")),
    "rest_missing": Kind("rest", (*_REST, "how"), ("window", "rows")),
    "rest_limit": Kind("rest", (*_REST, "retry_after", "count", "ban")),
    "clock": Kind("clock", ("at", "ms", "drift_ppm")),
}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "delay": {"ms": 50.0},
    "refuse": {"status": 503},
    "rest_slow": {"ms": 2_000.0},
    "rest_error": {"status": 500},
    "rest_lag": {"ms": 2_000.0},
    "rest_limit": {"retry_after_s": 5.0, "count": 3, "ban_s": 120.0},
    "duplicate": {"chance": 0.1},
    "lose": {"chance": 0.1},
    "garbage": {"chance": 0.01},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. Times in seconds; `docs/simulator.md` has a table of what each kind reads."""

    kind: str
    at_s: float = 0.0
    """When its window opens, from the start of the market."""
    for_s: float = inf
    """How long the window is; an act happens once unless `every_s` is given."""
    every_s: float = 0.0
    """An act is repeated after so long; 0 once."""
    age_s: float | None = None
    """An act happens at this age of each connection instead of at a time."""
    chance: float = 1.0
    """Probability per frame, act, request or handshake."""
    connections: str | int = "all"
    """One of PICKS, or the number of a connection, the first since the start being 1."""
    stream: str = "*"
    """Streams hit, * and ? as in file names; "reply" means the answers to requests."""
    path: str = "*"
    """REST paths hit, below /api/v3/."""
    how: str = ""
    ms: float = 0.0
    count: int = 1
    status: int = 0
    code: int = 1001
    delay_s: float = 0.0
    retry_after_s: float = 0.0
    ban_s: float = 0.0
    drift_ppm: float = 0.0

    @property
    def group(self) -> Group:
        """What it acts on."""
        return KINDS[self.kind].group

    @property
    def end_s(self) -> float:
        """When its window closes."""
        return self.at_s + self.for_s


_TYPES: Mapping[str, tuple[type, ...]] = {
    "chance": (int, float), "ms": (int, float), "drift_ppm": (int, float), "count": (int,), "status": (int,),
    "code": (int,), "how": (str,), "stream": (str,), "path": (str,), "connections": (str, int),
}  # fmt: skip
FAULT_FIELDS = frozenset(field.name for field in fields(Fault))


def make_fault(given: Mapping[str, Any], place: str = "fault") -> Fault:
    """A fault from the keys of a script. FaultError names `place`, what is wrong, and what would be right."""
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise FaultError(f"{place}: kind {kind!r} is unknown{_near(kind, KINDS)}")
    known = KINDS[kind]
    values: dict[str, Any] = {"kind": kind, **_DEFAULTS.get(kind, {})}
    if known.ways:
        values["how"] = known.ways[0]
    for key, value in given.items():
        if key == "kind":
            continue
        if key not in known.keys:
            raise FaultError(f"{place}: {kind} has no key {key!r}{_near(key, known.keys)}")
        if key in DURATIONS:
            values[DURATIONS[key]] = _duration(value, f"{place}: {key}")
        else:
            values[key] = _value(key, value, place)
    fault = Fault(**values)
    _check(fault, known, place)
    return fault


def _near(word: Any, known: Any) -> str:
    close = get_close_matches(str(word), list(known), 1)
    return f"; did you mean {close[0]}?" if close else f"; it can be {', '.join(sorted(known))}"


def _duration(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise FaultError(f"{place} must be a duration such as 500ms, 10s or 24h, not {value!r}")
    if not isinstance(value, str):
        if value == 0:
            return 0.0
        raise FaultError(f"{place}: {value!r} needs a unit; write {value}s or {value}ms")
    try:
        return parse_duration(value)
    except ValueError as error:
        raise FaultError(f"{place}: {value!r}: {error}") from None


def _value(key: str, value: Any, place: str) -> Any:
    kinds = _TYPES[key]
    if isinstance(value, bool) or not isinstance(value, kinds):
        names = " or ".join({int: "a whole number", float: "a number", str: "text"}[one] for one in kinds)
        raise FaultError(f"{place}: {key} must be {names}, not {value!r}")
    if isinstance(value, float) and not isfinite(value):
        raise FaultError(f"{place}: {key} must be a finite number, not {value!r}")
    return value


def _check(fault: Fault, known: Kind, place: str) -> None:
    wrong = None
    picks = fault.connections
    if not 0.0 <= fault.chance <= 1.0:
        wrong = f"chance is a probability from 0 to 1, not {fault.chance:g}"
    elif isinstance(picks, str) and picks not in PICKS:
        wrong = f"connections is {', '.join(PICKS)} or a number, not {picks!r}"
    elif isinstance(picks, int) and picks < 1:
        wrong = "connections are numbered from 1"
    elif known.ways and fault.how not in known.ways:
        wrong = f"how is {', '.join(known.ways)}, not {fault.how!r}"
    elif fault.age_s is not None and (fault.at_s or fault.every_s or picks in ("one", "half")):
        wrong = "age counts for each connection by itself: leave out at, every, and connections one or half"
    elif fault.kind in ("refuse", "rest_error") and not 400 <= fault.status <= 599:
        wrong = f"status is an HTTP error from 400 to 599, not {fault.status}"
    elif fault.kind == "stall" and fault.for_s == inf:
        wrong = "a stall ends: give it a length, for: 5s"
    elif fault.kind == "cut" and not 1000 <= fault.code <= 4999:
        wrong = f"code is a WebSocket close code from 1000 to 4999, not {fault.code}"
    elif fault.count < 1:
        wrong = "count starts at 1"
    elif fault.ms < 0 and fault.kind != "clock":
        wrong = "ms may not be negative"
    elif abs(fault.drift_ppm) > 100_000:
        wrong = "drift_ppm lies between -100000 and 100000, a tenth of the time"
    elif fault.for_s == 0:
        wrong = "for: 0 never happens; leave it out"
    if wrong is not None:
        raise FaultError(f"{place} ({fault.kind}): {wrong}")
