"""What path_sinks calls complete and exactly once."""

import pytest

from benchmarks.harness.store_check import Entry, Sums, entries_wrong, points_wrong, values_wrong

WANTED = {"BTCUSDT": Sums(3, 6, 60), "ETHUSDT": Sums(1, 9, 4)}
EPOCH = 7
STREAM = [Entry(EPOCH, 1, 100), Entry(EPOCH, 101, 101), Entry(EPOCH, 102, 250)]


def test_the_same_sums_are_well() -> None:
    assert points_wrong(dict(WANTED), WANTED) == []


@pytest.mark.parametrize(
    "held",
    [
        {},
        {"BTCUSDT": Sums(3, 6, 60)},
        {**WANTED, "BTCUSDT": Sums(2, 6, 60)},
        {**WANTED, "BTCUSDT": Sums(3, 7, 60)},
        {**WANTED, "BTCUSDT": Sums(3, 6, 61)},
        {**WANTED, "XRPUSDT": Sums(1, 1, 1)},
    ],
)
def test_other_sums_are_not(held: dict[str, Sums]) -> None:
    assert points_wrong(held, WANTED)


def test_a_stream_that_follows_the_tape_is_well() -> None:
    assert entries_wrong(STREAM, EPOCH, 250) == []


@pytest.mark.parametrize(
    ("entries", "head"),
    [
        (STREAM, 251),
        (STREAM[:2], 250),
        (STREAM[1:], 250),
        (STREAM[:1] + STREAM[2:], 250),
        (STREAM[:2] + STREAM[1:], 250),
        ([*STREAM[:2], Entry(EPOCH + 1, 102, 250)], 250),
        ([], 250),
    ],
    ids=["short", "cut", "late", "hole", "double", "other tape", "empty"],
)
def test_holes_doubles_and_other_tapes_are_found(entries: list[Entry], head: int) -> None:
    assert entries_wrong(entries, EPOCH, head)


def test_values_by_symbol() -> None:
    assert values_wrong("id", {"A": 1, "B": 2}, {"A": 1, "B": 2}) == []
    assert values_wrong("id", {"A": 1, "B": None}, {"A": 1, "B": 2}) == ["id of B: None instead of 2"]
    assert values_wrong("id", {"A": 1, "C": 3}, {"A": 1}) == ["id of C: 3 instead of None"]
