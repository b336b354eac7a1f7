"""A world out of a number: market, faults, when the engine stops and how. All follows from the seed."""

import random
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import yaml

from tradeback.model.units import parse_duration
from tradeback.sim.fault_seeds import fault_entries

How = Literal["stop", "kill"]
HISTORY_EVERY = 20
"""One world in so many also learns its history, which takes longer than all the rest."""
AGED_EVERY = 7
"""One in so many lives with connections that die of age all the time."""


class Stop(NamedTuple):
    """The engine ends `at_s` after the market's start and is away for `away_s`."""

    at_s: float
    how: How
    away_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One world."""

    seed: int
    symbols: int
    rate: float
    span_s: float
    bursts: float
    lines: int
    stops: tuple[Stop, ...]
    faults: tuple[dict[str, Any], ...]
    watchers: int
    history: bool
    settle_s: float
    life_rate: float


def plan_of(seed: int) -> Plan:
    """The plan of world number `seed`."""
    rng = random.Random(f"world {seed}")
    symbols = rng.randint(1, 4)
    span_s = rng.uniform(4.0, 16.0)
    rate = min(rng.choice((60.0, 200.0, 400.0, 1_000.0)), 6_000.0 / span_s)
    stops = []
    at_s = 0.0
    for _ in range(rng.choices((0, 1, 2, 3), (5, 4, 2, 1))[0]):
        at_s += rng.uniform(0.1, 0.45) * span_s
        if at_s < 0.85 * span_s:
            away_s = rng.choice((0.0, 0.0, 0.3, 2.0))
            stops.append(Stop(at_s, rng.choice(("stop", "kill")), away_s))
            at_s += away_s
    names = [f"{coin}USDT" for coin in ("BTC", "ETH", "BNB", "SOL")][:symbols]
    life_rate = rng.choice((8_000.0, 20_000.0)) if seed % AGED_EVERY == AGED_EVERY - 1 else 1.0
    return Plan(
        seed=seed,
        symbols=symbols,
        rate=rate,
        span_s=span_s,
        bursts=rng.choice((0.0, 1.0, 1.0)),
        lines=rng.choice((1, 2, 2, 2)),
        stops=tuple(stops),
        faults=tuple(_aged(entry, life_rate) for entry in fault_entries(seed, span_s, names)),
        watchers=rng.choice((0, 1, 2)),
        history=seed % HISTORY_EVERY == HISTORY_EVERY - 1,
        settle_s=40.0,
        life_rate=life_rate,
    )


def _aged(entry: dict[str, Any], life_rate: float) -> dict[str, Any]:
    """Ages are drawn in seconds of the market."""
    if "age" not in entry:
        return entry
    return {**entry, "age": f"{parse_duration(entry['age']) * life_rate:.3f}s"}


def script_of(plan: Plan) -> str:
    """The faults as a script for `tradeback sim --faults`."""
    text: str = yaml.safe_dump(
        {"seed": plan.seed, "faults": list(plan.faults)}, default_flow_style=None, sort_keys=False, width=110
    )
    return text
