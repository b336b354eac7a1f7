"""Subjects of version 2: what is left out of the quotes that a slow reader wanted."""

import numpy as np
import pytest

from tradeback.feed.interest import Interest
from tradeback.feed.subjects import quotes_left_out, subjects_of
from tradeback.model.record import QUOTE, TRADE, Rows, empty_rows
from tradeback.wire import control


def rows_of(*symbol_ids: int) -> Rows:
    """A quote of each, and trades between them."""
    rows = empty_rows(2 * len(symbol_ids))
    rows["kind"][::2], rows["kind"][1::2] = QUOTE, TRADE
    rows["symbol_id"] = np.repeat(symbol_ids, 2)
    return rows


@pytest.mark.parametrize(
    ("wanted", "left_out"),
    [
        (subjects_of([control.QUOTES], frozenset({0})), 3),
        (subjects_of([control.QUOTES, control.TRADES], frozenset({1})), 2),
        (subjects_of([control.QUOTES], frozenset({7, 9})), 0),
        (subjects_of([control.QUOTES], frozenset({1, 5, 60_000})), 3),
        (subjects_of([control.TRADES], frozenset({0})), 0),
        (frozenset(), 0),
    ],
)
def test_quotes_left_out(wanted: Interest, left_out: int) -> None:
    assert quotes_left_out(wanted, rows_of(1, 5, 1, 7, 5, 1)) == left_out
    assert quotes_left_out(wanted, empty_rows(4)) == 0
