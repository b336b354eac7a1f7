"""Some worlds on every run of the tests; `make worlds N=10000` for more."""

import pytest

from tests.worlds.__main__ import replay_command
from tests.worlds.living import live_through
from tests.worlds.plan import plan_of

WORLDS = 40


@pytest.mark.parametrize("seed", range(WORLDS))
def test_a_world_holds(seed: int) -> None:
    ending = live_through(seed)
    assert not ending.problem, f"world {seed} broke: {ending.problem}\nagain with: {replay_command(seed)}"


def test_a_plan_follows_from_its_seed() -> None:
    assert plan_of(17) == plan_of(17)
    assert plan_of(17) != plan_of(18)
