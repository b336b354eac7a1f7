"""harness.calm: a run in trouble against calm ones."""

import pytest

from benchmarks.harness.calm import to_calm, unlike_doubt


def test_the_better_calm_run_is_the_measure() -> None:
    calm, calmer, busy = {"m": 4.2, "t": 16.0}, {"m": 4.1, "t": 10.0}, {"m": 4.4, "t": 12.0}
    for order in ((calm, calmer), (calmer, calm)):
        found, alike = to_calm(busy, *order, p50="m", p99="t")
        assert found == pytest.approx(1.2)
        assert alike


@pytest.mark.parametrize(("busy", "calm", "wanted"), [("slow", "fast", 2.2), ("fast", "slow", 10 / 22)])
def test_a_run_at_another_pace_keeps_its_ratio_and_says_so(busy: str, calm: str, wanted: float) -> None:
    runs = {"slow": {"m": 9.0, "t": 22.0}, "fast": {"m": 4.0, "t": 10.0}}
    found, alike = to_calm(runs[busy], runs[calm], p50="m", p99="t")
    assert found == pytest.approx(wanted)
    assert not alike


def test_only_runs_at_another_pace_are_a_doubt() -> None:
    assert not unlike_doubt([])
    assert not unlike_doubt([True, True])
    assert "in 1 of 3" in unlike_doubt([True, False, True])
