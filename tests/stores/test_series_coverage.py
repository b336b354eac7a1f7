"""stores.series_coverage: what was asked for is remembered as a set, in whatever order it was noted."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.stores.series_sqlite import SCHEMA, SeriesSqlite
from tradeback.stores.sqlite import Sqlite

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12)


@settings(max_examples=30, deadline=None)
@given(spans)
def test_spans_add_up(tmp_path_factory: pytest.TempPathFactory, noted: list[tuple[int, int]]) -> None:
    folder = tmp_path_factory.mktemp("coverage")
    store = SeriesSqlite(folder / "series.sqlite")
    expected: set[int] = set()
    for from_s, length in noted:
        store.cover(1, 2, from_s, from_s + length)
        expected |= set(range(from_s, from_s + length))
    store.cover(2, 2, 500, 600)
    store.close()
    store = SeriesSqlite(folder / "series.sqlite")
    pieces = store.covered(1, 2).pieces()
    assert {second for first, last in pieces for second in range(first, last + 1)} == expected
    assert all(after[0] > before[1] + 1 for before, after in itertools.pairwise(pieces))
    assert store.covered(2, 2).pieces() == [(500, 599)]
    assert store.covered(3, 2).pieces() == []
    store.begin_rebuild()
    assert store.covered(2, 2).pieces() == [(500, 599)], "the exchange's bars stay, and so does this"
    store.close()


def test_a_store_of_the_version_before_is_brought_up(tmp_path: Path) -> None:
    Sqlite(tmp_path / "series.sqlite", SCHEMA).close()
    store = SeriesSqlite(tmp_path / "series.sqlite")
    store.cover(1, 1, 60, 120)
    assert store.covered(1, 1).pieces() == [(60, 119)]
    store.close()
