"""feed/interest: the kernel's tables say what a dictionary of sets says, after any joins and leaves."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.feed.interest import EVERYTHING, NOTHING, Interest, InterestTable, union, without

keys = st.one_of(st.just(EVERYTHING), st.frozensets(st.integers(1, 12), min_size=1, max_size=5))
steps = st.lists(st.tuples(st.booleans(), keys), max_size=120)


@settings(deadline=None)
@given(steps)
def test_tables_equal_a_dictionary_of_sets(given_steps: list[tuple[bool, Interest]]) -> None:
    table = InterestTable()
    held: dict[Interest, list[int]] = {}
    for joining, key in given_steps:
        if joining:
            held.setdefault(key, []).append(table.join(key))
        elif held.get(key):
            gone = table.leave(held[key].pop())
            assert gone == (not held[key])
    alive = {key: indexes[0] for key, indexes in held.items() if indexes}
    assert len(table) == len(alive)
    assert len(set(alive.values())) == len(alive)
    for key, index in alive.items():
        assert table.key_of(index) == key
    for symbol_id in range(13):
        expected = sorted(index for key, index in alive.items() if symbol_id in key)
        assert sorted(table.groups_of(symbol_id)) == expected


def test_tables_grow_and_indexes_are_used_again() -> None:
    table = InterestTable()
    many: list[Interest] = [frozenset({1, 2 + place}) for place in range(700)]
    indexes = [table.join(key) for key in many]
    assert sorted(table.groups_of(1)) == sorted(indexes)
    assert len(table.touched) >= 700
    for index in indexes:
        assert table.leave(index)
    assert table.groups_of(1) == []
    assert len(table) == 0
    size = len(table.touched)
    assert sorted(table.join(key) for key in many) == sorted(indexes)
    assert len(table.touched) == size


def test_a_group_that_is_gone_has_no_key() -> None:
    table = InterestTable()
    index = table.join(frozenset({5}))
    table.leave(index)
    with pytest.raises(KeyError):
        table.key_of(index)
    with pytest.raises(KeyError):
        table.leave(index)


def test_union_and_without() -> None:
    assert union(frozenset({1}), [2]) == {1, 2}
    assert union(EVERYTHING, [2]) == EVERYTHING
    assert union(frozenset({1}), EVERYTHING) == EVERYTHING
    assert without(frozenset({1, 2}), frozenset({2, 3}), [1, 2, 3]) == {1}
    assert without(EVERYTHING, frozenset({2}), [1, 2, 3]) == {1, 3}
    assert without(EVERYTHING, NOTHING, [1, 2, 3]) == EVERYTHING
    assert without(EVERYTHING, EVERYTHING, [1, 2, 3]) == NOTHING
    assert without(frozenset({1}), EVERYTHING, [1]) == NOTHING
