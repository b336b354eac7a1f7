"""exchange.placement: symbols come and go; what is carried stays where it is, nothing is too full."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.exchange.placement import Placement
from tradeback.exchange.streams import STREAMS, plan_lines

PLACES = 4
NAMES = [f"S{number}" for number in range(24)]
Step = tuple[bool, list[str]]
steps = st.lists(
    st.tuples(st.booleans(), st.lists(st.sampled_from(NAMES), max_size=12, unique=True)), max_size=25
)


def check(placement: Placement, connections_max: int, lines: int) -> None:
    """What always holds."""
    shards = placement.shards
    carried = [name for names in shards.values() for name in names]
    assert len(carried) == len(set(carried)) == len(placement)
    assert all(0 < len(names) <= PLACES for names in shards.values())
    if shards:
        assert len(shards) * len(STREAMS) * lines + 1 <= connections_max, "one is left for rollovers"
    assert all(placement.shard_of(name) == number for number, names in shards.items() for name in names)


@settings(deadline=None, max_examples=300)
@given(steps, st.integers(1, 30), st.integers(1, 2))
def test_any_coming_and_going(script: list[Step], connections_max: int, lines: int) -> None:
    placement = Placement({}, lines, connections_max, PLACES)
    wanted: dict[str, int] = {}
    for comes, names in script:
        room, before = placement.room, placement.shards
        if comes:
            came = placement.add(names)
            found = [name for part in came.values() for name in part]
            new = [name for name in names if name not in wanted]
            assert found == sorted(found, key=new.index) or len(came) > 1
            assert len(found) == min(room, len(new)), "as many as there is room for"
            wanted |= {name: number for number, part in came.items() for name in part}
            fresh = set(came) - set(before)
            if fresh:
                full = [names for number, names in placement.shards.items() if number not in fresh]
                assert all(len(part) == PLACES for part in full), "no connection without need"
            assert placement.room == room - len(found)
        else:
            went = placement.remove(names)
            gone = {name for part in went.values() for name in part}
            assert gone == set(names) & set(wanted)
            assert all(wanted[name] == number for number, part in went.items() for name in part)
            for name in gone:
                del wanted[name]
        check(placement, connections_max, lines)
        assert {name: placement.shard_of(name) for name in wanted} == wanted, "nobody has moved"
        assert len(placement) == len(wanted)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2_500), st.integers(1, 2))
def test_it_begins_as_the_lines_were_planned(count: int, lines: int) -> None:
    names = [f"S{number}" for number in range(count)]
    plans = plan_lines(names, lines, 30)
    placement = Placement.of(plans, lines, 30)
    assert placement.shards == {plan.shard: plan.symbols for plan in plans}
    assert len(placement) == count
    assert placement.room == (29 // (3 * lines)) * 1_024 - count


def test_the_emptiest_shard_is_filled_first_and_numbers_are_used_again() -> None:
    placement = Placement({0: ["A", "B", "C"], 2: ["D"]}, 1, 10, PLACES)
    assert placement.add(["E", "F", "G"]) == {2: ["E", "F"], 0: ["G"]}
    assert placement.add(["G", "H", "I"]) == {2: ["H"], 1: ["I"]}
    assert placement.remove(["D", "E", "F", "H", "Z"]) == {2: ["D", "E", "F", "H"]}
    assert set(placement.shards) == {0, 1}
    assert "I" in placement
    assert "D" not in placement


def test_more_than_the_limit_allows_is_kept_but_nothing_is_added() -> None:
    """A pool that was made with more connections than allowed now: `plan_lines` would have refused."""
    placement = Placement({0: ["A"], 1: ["B"]}, 2, 7, PLACES)
    assert placement.shards_max == 1
    assert placement.room == 2 * PLACES - 2
    assert Placement({}, 2, 6).room == 0
    assert Placement({}, 2, 6).add(["A"]) == {}


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="two shards"):
        Placement({0: ["A"], 1: ["A"]}, 1, 30)
    with pytest.raises(ValueError, match="4 symbols at the most"):
        Placement({0: NAMES[:5]}, 1, 30, PLACES)
