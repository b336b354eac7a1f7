"""The made-up past: exact at every level, joined to the live market, the same for the same seed."""

import itertools

import pytest

from tradeback.sim.bars import LEVELS, merge
from tradeback.sim.history import History
from tradeback.sim.instrument import catalogue, known
from tradeback.sim.text import SCALE

ANCHOR_S = 1_781_000_123


def make(symbol: str = "BTCUSDT", seed: int = 1, per_day: float = 50_000) -> History:
    """A history of a well-known symbol."""
    instrument = known(symbol)
    assert instrument is not None
    return History(
        seed,
        instrument,
        anchor_s=ANCHOR_S,
        anchor_price=instrument.price,
        next_id=10**9,
        trades_per_day=per_day,
    )


@pytest.mark.parametrize("symbol", ["BTCUSDT", "SHIBUSDT", "ETHBTC"])
@pytest.mark.parametrize("back", [0, 1, 400])
@pytest.mark.parametrize("level", range(len(LEVELS) - 1))
def test_a_bar_is_the_aggregation_of_finer_bars(symbol: str, back: int, level: int) -> None:
    history = make(symbol)
    size, finer = LEVELS[level], LEVELS[level + 1]
    start_s = (ANCHOR_S - back * size) // size * size
    together = None
    for child_s in range(start_s, start_s + size, finer):
        together = merge(together, history.bar(finer, child_s))
    assert together == history.bar(size, start_s)
    assert together is not None


def test_it_ends_at_the_anchor_with_the_last_price_and_id() -> None:
    history = make()
    bar = history.bar(86_400, ANCHOR_S // 86_400 * 86_400)
    assert bar is not None
    assert bar.close == 64_250 * SCALE
    assert bar.last_id == 10**9 - 1
    assert history.bar(60, ANCHOR_S // 60 * 60 + 60) is None
    last = next(bar for s in range(ANCHOR_S - 1, 0, -1) if (bar := history.bar(1, s)))
    assert (last.close, last.last_id) == (64_250 * SCALE, 10**9 - 1)


def test_days_follow_each_other_without_a_hole() -> None:
    history = make()
    starts = range(history.first_s, ANCHOR_S, 86_400)
    days = [history.bar(86_400, start_s) for start_s in starts]
    assert len(days) == 1_827
    assert all(days)
    for before, after in itertools.pairwise(days):
        assert before is not None
        assert after is not None
        assert after.first_id == before.last_id + 1
        assert after.open == before.close
    assert days[0] is not None
    assert days[0].first_id >= 1


def test_days_made_in_steps_are_the_same_whoever_gives_up_in_between() -> None:
    stepwise, whole = make(), make()
    for _, _ in zip(range(5), stepwise.prepare(), strict=False):
        pass
    steps = sum(1 for _ in stepwise.prepare())
    assert steps > 20
    assert sum(1 for _ in stepwise.prepare()) == 0
    for start_s in range(whole.first_s, ANCHOR_S, 86_400):
        assert stepwise.bar(86_400, start_s) == whole.bar(86_400, start_s) is not None


def test_the_seed_decides() -> None:
    start_s = ANCHOR_S // 60 * 60 - 6_000
    assert make(seed=5).bar(60, start_s) == make(seed=5).bar(60, start_s)
    assert make(seed=5).bar(60, start_s) != make(seed=6).bar(60, start_s)


def test_mean_prices_lie_within_their_bars() -> None:
    outside = bars = 0
    for instrument in catalogue(6):
        history = History(
            3,
            instrument,
            anchor_s=ANCHOR_S,
            anchor_price=instrument.price,
            next_id=10**9,
            trades_per_day=90_000,
        )
        for start_s in range(ANCHOR_S // 60 * 60 - 18_000, ANCHOR_S - 60, 60):
            bar = history.bar(60, start_s)
            if bar is not None:
                bars += 1
                outside += not bar.low * bar.volume <= bar.quote_volume <= bar.high * bar.volume
    assert bars > 1_500
    assert outside < bars * 0.03
