"""derive.completeness_ranges against sets of ids."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tradeback.derive.completeness_ranges import IdRanges, minus

ranges = st.tuples(st.integers(0, 40), st.integers(-1, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))
steps = st.lists(st.tuples(st.booleans(), ranges), max_size=30)


def ids(pieces: list[tuple[int, int]]) -> set[int]:
    return {number for first, last in pieces for number in range(first, last + 1)}


@given(steps, ranges)
def test_they_are_sets(changes: list[tuple[bool, tuple[int, int]]], asked: tuple[int, int]) -> None:
    held, oracle = IdRanges(), set[int]()
    for adding, (first, last) in changes:
        span = set(range(first, last + 1))
        if adding:
            held.add(first, last)
            oracle |= span
        else:
            assert held.take(first, last) == len(oracle & span)
            oracle -= span
        pieces = held.pieces()
        assert ids(pieces) == oracle
        assert held.total == len(oracle)
        assert bool(held) == bool(oracle)
        assert all(low <= high for low, high in pieces)
        assert all(one[1] + 1 < other[0] for one, other in itertools.pairwise(pieces))
    inside = oracle & set(range(asked[0], asked[1] + 1))
    assert held.touches(*asked) == bool(inside) or asked[0] > asked[1]
    assert held.count(*asked) == len(inside)
    assert ids(held.within(*asked)) == inside
    assert all((number in held) == (number in oracle) for number in range(55))
    assert IdRanges(held.pieces()).pieces() == held.pieces()


@given(st.lists(ranges), st.lists(ranges))
def test_what_is_left(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    assert ids(minus(IdRanges(one).pieces(), IdRanges(other))) == ids(one) - ids(other)
