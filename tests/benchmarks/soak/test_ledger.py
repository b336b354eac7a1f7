"""The soak's ledger finds every loss and every double, and nothing else."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.soak.ledger import APART_MAX, GRACE_S, Ledger, Twins
from tradeback.model.record import LATE, REPAIRED, STAND_IN


def feed(ledger: Ledger, *ids: int, flags: int = 0, now_s: float = 0.0) -> None:
    for trade_id in ids:
        ledger.trade(1, trade_id, trade_id, flags, now_s)


def test_every_id_once_is_nothing_special() -> None:
    ledger = Ledger()
    feed(ledger, *range(100, 200))
    assert (ledger.trades, ledger.holes, ledger.lost(1e9), ledger.doubled) == (100, 0, 0, 0)


def test_a_hole_is_lost_after_the_grace_time_and_found_again_when_it_is_repaired() -> None:
    ledger = Ledger()
    feed(ledger, 1, 2, 5, now_s=10.0)
    assert (ledger.holes, ledger.lost(10.0 + GRACE_S), ledger.lost(10.1 + GRACE_S)) == (2, 0, 2)
    feed(ledger, 3, 4, flags=REPAIRED | LATE)
    assert (ledger.holes, ledger.lost(1e9), ledger.repaired, ledger.late) == (0, 0, 2, 2)


def test_doubles_are_counted_also_of_repaired_ids() -> None:
    ledger = Ledger()
    feed(ledger, 1, 2, 4, 3, 3, 2)
    assert (ledger.doubled, ledger.holes) == (2, 0)


def test_ids_from_before_the_first_say_nothing() -> None:
    ledger = Ledger()
    feed(ledger, 10, 9, 8, 11)
    assert (ledger.doubled, ledger.holes) == (0, 0)


def test_what_the_engine_gives_up_is_no_loss_and_may_come_after_all() -> None:
    ledger = Ledger()
    feed(ledger, 1, 10)
    ledger.give_up(1, 2, 5)
    assert (ledger.holes, ledger.unrepairable) == (4, 4)
    feed(ledger, 3)
    assert (ledger.unrepairable, ledger.doubled) == (3, 0)
    feed(ledger, 3)
    assert ledger.doubled == 1


def test_a_stand_in_has_the_place_of_its_holes_only() -> None:
    ledger = Ledger()
    feed(ledger, 1, 3, 6, 9)
    ledger.give_up(1, 4, 4)
    ledger.trade(1, 5, 2, STAND_IN, 0.0)
    assert (ledger.stood_in, ledger.unrepairable, ledger.holes) == (3, 0, 2)
    assert ledger.trades == 4


def test_symbols_do_not_mix() -> None:
    ledger = Ledger()
    for symbol_id, trade_id in ((1, 5), (2, 900), (1, 6), (2, 901)):
        ledger.trade(symbol_id, trade_id, trade_id, 0, 0.0)
    assert (ledger.holes, ledger.doubled) == (0, 0)


@given(st.integers(0, 1 << 32), st.integers(2, 60))
@settings(deadline=None)
def test_whatever_the_order_losses_and_doubles_are_counted_exactly(seed: int, count: int) -> None:
    rng = random.Random(seed)
    lost = set(rng.sample(range(1, count), rng.randrange(count - 1)))
    coming = [trade_id for trade_id in range(1, count) if trade_id not in lost]
    doubled = rng.choices(coming, k=rng.randrange(4)) if coming else []
    coming += doubled
    rng.shuffle(coming)
    ledger = Ledger()
    feed(ledger, 0, *coming, count)
    assert (ledger.holes, ledger.doubled) == (len(lost), len(doubled))


def entries(seed: int, count: int) -> list[tuple[float, float]]:
    rng = random.Random(seed)
    return [(100 + rng.randrange(5) / 100, rng.randrange(1, 50) / 1_000) for _ in range(count)]


def twins(v1: list[tuple[float, float]], v2: list[tuple[float, float]], step: int = 7) -> Twins:
    """Both streams in pieces, compared in between."""
    compared = Twins()
    for start in range(0, max(len(v1), len(v2)), step):
        for price, volume in v1[start : start + step]:
            compared.v1(1, price, volume)
        compared.match()
        for price, volume in v2[start : start + step]:
            compared.v2(1, price, volume)
        compared.match()
    return compared


@given(st.integers(0, 1 << 32), st.integers(0, 30), st.booleans())
@settings(deadline=None)
def test_twins_find_their_beginning_whoever_was_first(seed: int, ahead: int, simple_first: bool) -> None:
    whole = entries(seed, 200)
    v1, v2 = (whole, whole[ahead:]) if simple_first else (whole[ahead:], whole)
    found = twins(v1, v2)
    assert (found.differs, found.compared) == (0, 200 - ahead)


def test_summed_volumes_are_no_difference() -> None:
    v2 = [(100.0, 1.0)] * 4 + [(101.0, 0.1), (102.0, 0.2), (101.0, 0.3), (103.0, 1.0)]
    v1 = [*v2[:4], (101.0, 0.6), v2[7]]
    found = twins(v1, v2, step=4)
    assert (found.differs, found.conflated, found.compared, found.waiting) == (0, 1, 8, 0)


def test_a_missing_entry_is_a_difference() -> None:
    whole = [(100.0 + place, 1.0) for place in range(60)]
    for without in (20, 40):
        assert twins(whole[:without] + whole[without + 1 :], whole).differs >= 1
        assert twins(whole, whole[:without] + whole[without + 1 :]).differs >= 1


def test_one_side_that_says_nothing_is_a_difference_in_the_end() -> None:
    whole = [(100.0 + place, 1.0) for place in range(20)]
    compared = twins(whole, whole)
    for place in range(APART_MAX + 1):
        compared.v2(1, 200.0 + place, 1.0)
    compared.match()
    assert compared.differs == 1
