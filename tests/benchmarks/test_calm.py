"""harness.calm: a run in trouble against calm ones."""

import numpy as np
import pytest

from benchmarks.harness.calm import WINDOW, to_calm, usual_p99_us


def test_one_stall_is_not_the_usual_p99_but_what_lasts_is() -> None:
    calm = np.tile(np.arange(1, 101, dtype=np.int64) * 1_000, 250)
    assert usual_p99_us(calm) == pytest.approx(99.0, abs=1.0)
    stalled = calm.copy()
    stalled[3 * WINDOW : 4 * WINDOW] += 2_000_000
    assert usual_p99_us(stalled) == usual_p99_us(calm)
    assert np.percentile(stalled, 99) > 2_000_000
    lasting = calm.copy()
    lasting[::50] += 2_000_000
    assert usual_p99_us(lasting) > 2_000


def test_a_run_that_is_shorter_than_a_window_is_one() -> None:
    assert usual_p99_us(np.full(10, 7_000, np.int64)) == 7.0


def test_calm_runs_at_the_same_pace_are_taken() -> None:
    slow, fast, busy = {"m": 9.0, "t": 22.0}, {"m": 4.0, "t": 10.0}, {"m": 4.4, "t": 12.0}
    found = [
        to_calm(busy, slow, fast, p50="m", p99="t"),
        to_calm(busy, fast, {"m": 4.1, "t": 8.0}, p50="m", p99="t"),
        to_calm(busy, slow, p50="m", p99="t"),
    ]
    assert [ratio for ratio, _ in found] == pytest.approx([1.2, 12 / 9, 12 / 22])
    assert [alike for _, alike in found] == [True, True, False]
