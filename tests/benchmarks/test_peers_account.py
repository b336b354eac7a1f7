import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.peers.account import account, latency, longest_silence_s, reported


def got(*ids: int, symbol: str = "BTCUSDT") -> list[tuple[str, int, int]]:
    return [(symbol, number, place) for place, number in enumerate(ids)]


def test_lost_are_the_ids_between_the_first_that_came_and_the_newest_that_happened() -> None:
    found = account(got(7, 8, 11, 12), [], {"BTCUSDT": 14})
    assert found.lost == {"BTCUSDT": [9, 10, 13, 14]}
    assert (found.lost_count, found.doubled, found.received, found.unseen) == (4, 0, 4, [])


def test_what_comes_late_is_not_lost_and_what_comes_again_is_doubled() -> None:
    found = account(got(7, 9, 8, 9, 9), [], {"BTCUSDT": 9})
    assert (found.lost, found.doubled, found.received) == ({}, 2, 3)


def test_what_came_after_the_newest_that_was_asked_for_is_no_loss() -> None:
    found = account(got(7, 8, 9), [], {"BTCUSDT": 8})
    assert (found.lost, found.received) == ({}, 3)


def test_a_symbol_of_which_nothing_came_is_named() -> None:
    found = account(got(7), [], {"BTCUSDT": 7, "ETHUSDT": 90})
    assert (found.unseen, found.lost_count) == (["ETHUSDT"], 0)


def test_stand_ins_are_neither_lost_nor_received() -> None:
    found = account(got(7, 8, 12), [("BTCUSDT", 8, 10)], {"BTCUSDT": 12})
    assert (found.lost, found.stood_in, found.received) == ({"BTCUSDT": [11]}, 2, 3)


@settings(deadline=None)
@given(
    st.lists(st.integers(100, 130), min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(100, 130), st.integers(0, 5)), max_size=4),
    st.integers(100, 135),
)
def test_every_id_is_in_exactly_one_place(
    came: Sequence[int], stood: Sequence[tuple[int, int]], newest: int
) -> None:
    ranges = [("BTCUSDT", first, first + more) for first, more in stood]
    found = account(got(*came), ranges, {"BTCUSDT": newest})
    happened = list(range(min(came), newest + 1))
    seen = [number for number in happened if number in came]
    covered = {number for first, more in stood for number in range(first, first + more + 1)}
    assert len(seen) + found.stood_in + found.lost_count == len(happened)
    assert all(number not in covered and number not in came for number in found.lost.get("BTCUSDT", []))
    assert found.received + found.doubled == len(came)


def test_reported_ids_count_once_and_end_in_their_last_state() -> None:
    gaps = [
        ["BTCUSDT", "open", 10, 14, 5],
        ["ETHUSDT", "open", 10, 11, 2],
        ["BTCUSDT", "repaired", 10, 14, 0],
        ["ETHUSDT", "unrepairable", 10, 11, 2],
    ]
    assert reported(gaps) == (7, {"repaired": 5, "unrepairable": 2})
    assert reported([]) == (0, {})


def test_the_longest_silence() -> None:
    stamps = [0, 1_000_000, 6_000_000_000, 6_000_000_001]
    arrived = [("BTCUSDT", 1, at_ns) for at_ns in stamps]
    assert longest_silence_s(arrived) == pytest.approx(5.999)
    assert longest_silence_s(arrived[:1]) == 0


def test_latency_is_told_from_the_stamp_and_from_the_send() -> None:
    sent = {("BTCUSDT", number): (1_000 + number, 1_400_000 + number * 1_000) for number in range(200)}
    arrived = [("BTCUSDT", number, 1_500_000 + number * 1_000) for number in range(200)]
    found = latency(arrived, sent, 0, 2_000_000)
    assert (found.stamp_p50_us, found.stamp_p99_us) == (500, 500)
    assert (found.sent_p50_us, found.sent_p99_us, found.trades) == (100, 100, 200)


def test_a_moment_in_which_the_machine_stood_still_is_not_the_99th_percentile() -> None:
    arrived = [("BTCUSDT", number, number * 1_000_000) for number in range(800)]
    sent = {("BTCUSDT", number): (number * 1_000 - 7, number * 1_000_000 - 5_000) for number in range(800)}
    late = [(symbol, number, at_ns + 90_000_000 * (100 < number < 110)) for symbol, number, at_ns in arrived]
    assert latency(late, sent, 0, 800_000_000) == latency(arrived, sent, 0, 800_000_000)


def test_only_trades_of_the_window_whose_sending_is_known_count() -> None:
    arrived = [("BTCUSDT", number, number * 1_000_000) for number in itertools.chain(range(100), (1_000,))]
    sent = {
        ("BTCUSDT", number): (number * 1_000 - 7, number * 1_000_000 - 5_000) for number in range(50, 2_000)
    }
    found = latency(arrived, sent, 60_000_000, 90_000_000)
    assert found.trades == 30
    assert math.isclose(found.stamp_p50_us, 7)
    with pytest.raises(ValueError, match="no latency"):
        latency(arrived, sent, 0, 1)
