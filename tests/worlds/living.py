"""One world from its seed to the verdict, for whatever runs many."""

import os
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

MEMORY = "/dev/shm"
"""A disk in memory, if there is one: worlds sync files thousands of times a minute."""


class Ending(NamedTuple):
    """How a world ended."""

    seed: int
    trades: int
    hits: dict[str, int]
    problem: str
    """"" when every invariant held."""
    real_s: float


def live_through(seed: int, keep: Path | None = None) -> Ending:
    """One world in a folder of its own (`keep`: one that stays). Never raises."""
    from tests.worlds.checks import check
    from tests.worlds.plan import plan_of
    from tests.worlds.world import Broken, live

    began = time.perf_counter()
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="world", dir=memory) as made:
        folder = keep if keep is not None else Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            story = live(plan_of(seed), folder)
            check(story)
        except Broken as error:
            return Ending(seed, 0, {}, str(error), time.perf_counter() - began)
        except Exception:  # whatever it is, the other worlds go on and this one is told
            return Ending(seed, 0, {}, traceback.format_exc(), time.perf_counter() - began)
        trades = sum(len(told.trades) for told in story.told.values())
        hits = dict(story.witness.hits) if story.witness else {}
        return Ending(seed, trades, hits, "", time.perf_counter() - began)
