"""Two hundred worlds on every run of the tests, on all cores; `make worlds N=10000` for more."""

import multiprocessing
import os
from collections.abc import Iterator

import pytest

from tests.worlds.__main__ import replay_command
from tests.worlds.living import Ending, live_through
from tests.worlds.plan import plan_of

WORLDS = 200
FEW = 4
"""So many are lived through here: processes of their own would take longer to start."""


@pytest.fixture(scope="module")
def endings(request: pytest.FixtureRequest) -> Iterator[dict[int, Ending]]:
    """How the worlds ended whose tests were chosen, by seed."""
    chosen = [
        item.callspec.params["seed"]
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    ]
    if len(chosen) <= FEW:
        yield {seed: live_through(seed) for seed in chosen}
        return
    # As in `python -m tests.worlds`: forked workers would share the numba runtime's threads.
    with multiprocessing.get_context("spawn").Pool(os.cpu_count() or 1) as pool:
        yield {ending.seed: ending for ending in pool.imap_unordered(live_through, chosen, chunksize=4)}


@pytest.mark.parametrize("seed", range(WORLDS))
def test_a_world_holds(seed: int, endings: dict[int, Ending]) -> None:
    ending = endings[seed]
    assert not ending.problem, f"world {seed} broke: {ending.problem}\nagain with: {replay_command(seed)}"


def test_a_plan_follows_from_its_seed() -> None:
    assert plan_of(17) == plan_of(17)
    assert plan_of(17) != plan_of(18)
