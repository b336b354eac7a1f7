"""Weights, 429 and the ladder of bans."""

from tradeback.sim.config import SimConfig
from tradeback.sim.weights import MINUTE_MS, Weights


def test_the_minute_is_the_calendar_minute() -> None:
    weights = Weights(SimConfig(weight_per_minute=100))
    at = 7 * MINUTE_MS + 59_000
    assert weights.charge(100, at).status == 200
    refused = weights.charge(1, at)
    assert (refused.status, refused.retry_after_s, refused.used) == (429, 1, 101)
    served = weights.charge(1, at + 1_000)
    assert (served.status, served.used) == (200, 1)


def test_ignoring_429_bans_longer_each_time() -> None:
    weights = Weights(SimConfig(weight_per_minute=1, ban_after_ignored=2, ban_first_s=100, ban_max_s=150))
    statuses = [weights.charge(1, 0).status for _ in range(5)]
    assert statuses == [200, 429, 429, 418, 418]
    assert weights.charge(1, 60_500).retry_after_s == 40
    again = [weights.charge(1, 120_000) for _ in range(4)]
    assert [one.status for one in again] == [200, 429, 429, 418]
    assert again[-1].retry_after_s == 150
    assert again[-1].banned_until_ms == 270_000
