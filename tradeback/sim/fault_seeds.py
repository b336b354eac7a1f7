"""Fault scripts out of a number: the same seed makes the same misfortunes. Pure."""

import random
from collections.abc import Callable, Sequence
from typing import Any

from tradeback.sim.faults import BROKEN, GARBAGE, Fault, make_fault

Entry = dict[str, Any]
KINDS_OF_STREAM = ("trade", "aggTrade", "bookTicker")
EVERY_S = 6.0
"""Mean time between two faults."""


def fault_entries(seed: int, span_s: float, symbols: Sequence[str]) -> list[Entry]:
    """The entries of a script: about one fault per EVERY_S over `span_s`, each over before the span ends."""
    rng = random.Random(f"fault script {seed}")
    count = max(1, round(span_s / EVERY_S * rng.uniform(0.4, 2.0)))
    names = list(_MAKERS)
    chosen = rng.choices(names, [_MAKERS[name][0] for name in names], k=count)
    entries = []
    for name in chosen:
        entry = {"kind": name, **_MAKERS[name][1](rng, span_s, symbols)}
        entries.append(entry)
    entries.sort(key=lambda entry: _seconds(str(entry.get("at", "0s"))))
    return entries


def seeded_faults(seed: int, span_s: float, symbols: Sequence[str]) -> list[Fault]:
    """The same as faults."""
    return [
        make_fault(entry, f"fault {n}") for n, entry in enumerate(fault_entries(seed, span_s, symbols), 1)
    ]


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def _at(rng: random.Random, span_s: float) -> str:
    return f"{rng.uniform(0.02, 0.8) * span_s:.3f}s"


def _window(rng: random.Random, span_s: float, most_s: float) -> Entry:
    at_s = rng.uniform(0.02, 0.8) * span_s
    length_s = min(rng.uniform(0.02, 1.0) ** 2 * most_s, 0.95 * span_s - at_s)
    return {"at": f"{at_s:.3f}s", "for": f"{max(length_s, 0.001):.3f}s"}


def _stream(rng: random.Random, symbols: Sequence[str]) -> str:
    """Everything, one kind, one symbol, or one stream."""
    symbol, kind = rng.choice(symbols).lower(), rng.choice(KINDS_OF_STREAM)
    return rng.choice(("*", f"*@{kind}", f"{symbol}@*", f"{symbol}@{kind}", f"{symbol}@trade"))


def _picks(rng: random.Random) -> str:
    return rng.choices(("one", "half", "all"), (4, 2, 3))[0]


def _cut(rng: random.Random, span_s: float, symbols: Sequence[str]) -> Entry:
    entry: Entry = {"how": rng.choice(("reset", "close", "drop", "mid_frame"))}
    if rng.random() < 0.15:
        return {**entry, "age": f"{rng.uniform(0.2, 0.9) * span_s:.3f}s"}
    if entry["how"] == "close":
        entry["code"] = rng.choice((1000, 1001, 1006, 1008, 1011, 1012))
    if rng.random() < 0.3:
        window = _window(rng, span_s, 0.5 * span_s)
        return {**entry, **window, "every": f"{rng.uniform(0.05, 0.3) * span_s:.3f}s", "connections": "one"}
    return {**entry, "at": _at(rng, span_s), "connections": _picks(rng), "stream": _stream(rng, symbols)}


def _plain_act(rng: random.Random, span_s: float, symbols: Sequence[str]) -> Entry:
    return {"at": _at(rng, span_s), "connections": _picks(rng), "stream": _stream(rng, symbols)}


def _broken(rng: random.Random, span_s: float, symbols: Sequence[str]) -> Entry:
    return {"how": rng.choice(BROKEN[1:]), **_plain_act(rng, span_s, symbols)}


def _shutdown(rng: random.Random, span_s: float, symbols: Sequence[str]) -> Entry:
    delay = f"{rng.choice((0.0, 0.2, 1.0, 3.0)):.3f}s"
    return {"at": _at(rng, span_s), "connections": rng.choice(("one", "half", "all")), "delay": delay}


def _on_frames(rng: random.Random, span_s: float, symbols: Sequence[str]) -> Entry:
    return {**_window(rng, span_s, 4.0), "connections": _picks(rng), "stream": _stream(rng, symbols)}


def _lose(rng: random.Random, span_s: float, symbols: Sequence[str]) -> Entry:
    return {
        **_on_frames(rng, span_s, symbols),
        "chance": rng.choice((0.01, 0.1, 0.5, 1.0)),
        "how": rng.choice(("same", "each")),
        "count": rng.choice((1, 1, 3, 20)),
    }


def _with_chance(*chances: float) -> Callable[[random.Random, float, Sequence[str]], Entry]:
    def make(rng: random.Random, span_s: float, symbols: Sequence[str]) -> Entry:
        return {**_on_frames(rng, span_s, symbols), "chance": rng.choice(chances)}

    return make


def _duplicate(rng: random.Random, span_s: float, symbols: Sequence[str]) -> Entry:
    made = {**_on_frames(rng, span_s, symbols), "count": rng.choice((1, 1, 5, 60))}
    return {**made, "chance": 0.02 if made["count"] > 1 else rng.choice((0.1, 1.0))}


def _delay(rng: random.Random, span_s: float, symbols: Sequence[str]) -> Entry:
    return {
        **_on_frames(rng, span_s, symbols),
        "ms": rng.choice((5, 50, 500, 2500)),
        "chance": rng.choice((0.2, 1.0)),
    }


def _garbage(rng: random.Random, span_s: float, symbols: Sequence[str]) -> Entry:
    return {
        **_on_frames(rng, span_s, symbols),
        "how": rng.choice(GARBAGE),
        "chance": rng.choice((0.01, 0.05, 0.3)),
    }


def _refuse(rng: random.Random, span_s: float, symbols: Sequence[str]) -> Entry:
    entry = {
        **_window(rng, span_s, 5.0),
        "status": rng.choice((429, 500, 503, 404, 403)),
        "chance": rng.choice((0.5, 1.0)),
    }
    return {**entry, "retry_after": f"{rng.choice((1, 2, 3))}s"} if entry["status"] == 429 else entry


def _rest(rng: random.Random, span_s: float, **more: Any) -> Entry:
    return {**_window(rng, span_s, 8.0), "chance": rng.choice((0.3, 1.0)), **more}


_Maker = Callable[[random.Random, float, Sequence[str]], Entry]
_MAKERS: dict[str, tuple[int, _Maker]] = {
    "cut": (10, _cut),
    "half_open": (3, _plain_act),
    "shutdown": (2, _shutdown),
    "broken_bytes": (3, _broken),
    "stall": (5, _on_frames),
    "lose": (10, _lose),
    "duplicate": (5, _duplicate),
    "delay": (5, _delay),
    "reorder": (4, _with_chance(0.3, 1.0)),
    "garbage": (8, _garbage),
    "refuse": (3, _refuse),
    "rest_slow": (2, lambda rng, span_s, _: _rest(rng, span_s, ms=rng.choice((50, 500, 3000)))),
    "rest_error": (3, lambda rng, span_s, _: _rest(rng, span_s, status=rng.choice((500, 502, 503, 504)))),
    "rest_garbage": (
        2, lambda rng, span_s, _: _rest(rng, span_s, how=rng.choice(("not_json", "truncated", "empty")))
    ),
    "rest_cut": (2, lambda rng, span_s, _: _rest(rng, span_s, how=rng.choice(("body", "reset")))),
    "rest_lag": (3, lambda rng, span_s, _: _rest(rng, span_s, chance=1.0, ms=rng.choice((100, 1000, 4000)))),
    "rest_missing": (
        3, lambda rng, span_s, _: {**_window(rng, span_s, 6.0), "chance": rng.choice((0.05, 0.5, 1.0))}
    ),
    "rest_limit": (
        2, lambda rng, span_s, _: _rest(rng, span_s, retry_after=f"{rng.choice((1, 3))}s", ban="5s")
    ),
    "clock": (
        2, lambda rng, span_s, _: {"ms": rng.choice((-800, -40, 25, 700)), "drift_ppm": rng.choice((0, 150))}
    ),
}  # fmt: skip
"""Kind -> (weight, what draws its entry)."""
