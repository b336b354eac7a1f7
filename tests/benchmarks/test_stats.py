import math

import numpy as np
import pytest

from benchmarks.harness.stats import median, medians, percentiles_us, pooled_us, ratio


def test_percentiles_leave_the_warm_up_out() -> None:
    latency = np.array([9_000_000] * 10 + [2_000] * 89 + [5_000], np.int64)
    p50, p100 = percentiles_us(latency, 50, 100)
    assert (p50, p100) == (2.0, 5.0)


def test_several_runs_are_pooled_each_without_its_warm_up() -> None:
    runs = [np.array([9_000_000] * 10 + [us * 1_000] * 90, np.int64) for us in (2, 4, 6)]
    assert pooled_us(runs, 10, 50, 90, 100) == [2.0, 4.0, 6.0, 6.0]
    with pytest.raises(ValueError, match="no latency"):
        pooled_us([], 50)


def test_nothing_measured_is_an_error_not_a_figure() -> None:
    with pytest.raises(ValueError, match="no latency"):
        percentiles_us(np.zeros(0, np.int64), 50)
    with pytest.raises(ValueError, match="no value"):
        median([])


def test_medians_go_figure_by_figure() -> None:
    runs = [{"p50": 1.0, "p99": 9.0}, {"p50": 3.0, "p99": 7.0}, {"p50": 2.0}]
    assert medians(runs) == {"p50": 2.0, "p99": 8.0}


def test_a_ratio_to_a_failed_baseline_is_no_number() -> None:
    assert ratio(3.0, 2.0) == 1.5
    assert math.isnan(ratio(3.0, 0.0))
