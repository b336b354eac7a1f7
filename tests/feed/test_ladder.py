"""feed/ladder: who is waited for, who is given up."""

from tradeback.feed.ladder import LagWatch, Verdict


def test_no_progress_for_too_long() -> None:
    watch = LagWatch(since_s=100.0, unsent=5_000)
    assert watch.judge(109.9, 5_000, 10.0, behind=False) is Verdict.WAIT
    assert watch.judge(110.0, 5_000, 10.0, behind=False) is Verdict.STUCK


def test_any_progress_starts_the_clock_anew() -> None:
    watch = LagWatch(since_s=100.0, unsent=5_000)
    assert watch.judge(109.0, 4_999, 10.0, behind=False) is Verdict.WAIT
    assert watch.judge(118.9, 4_999, 10.0, behind=False) is Verdict.WAIT
    assert watch.judge(119.0, 4_999, 10.0, behind=False) is Verdict.STUCK


def test_more_waiting_than_before_is_no_progress() -> None:
    watch = LagWatch(since_s=100.0, unsent=5_000)
    assert watch.judge(105.0, 6_000, 10.0, behind=False) is Verdict.WAIT
    assert watch.judge(110.0, 6_000, 10.0, behind=False) is Verdict.STUCK


def test_what_the_hot_ring_lost_cannot_be_conflated() -> None:
    watch = LagWatch(since_s=100.0, unsent=5_000)
    assert watch.judge(100.1, 10, 10.0, behind=False) is Verdict.WAIT
    assert watch.judge(100.2, 5, 10.0, behind=True) is Verdict.BEHIND
