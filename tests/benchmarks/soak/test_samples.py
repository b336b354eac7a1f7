"""Columns with holes, quantiles of a histogram, and reading one's own process."""

import os
from math import inf, isnan, nan

import pytest

from benchmarks.soak.run import Options, hot_rows
from benchmarks.soak.samples import Samples, by_label, client_values, open_files, plain, quantile_us, threads

TEXT = """# HELP tradeback_tasks asyncio tasks
# TYPE tradeback_tasks gauge
tradeback_tasks{process="engine"} 24.0
tradeback_tasks{process="worker:0",worker="0"} 7.0
tradeback_feed_lagged_total 2.0
tradeback_feed_lagged_total{worker="0"} 3.0
tradeback_feed_lagged_total_more 9.0
"""


def test_a_new_column_was_not_measured_before_and_a_missing_value_not_now() -> None:
    samples = Samples()
    samples.add(0.0, {"a": 1})
    samples.add(1.0, {"b": 2})
    assert samples.times == [0.0, 1.0]
    assert samples.columns["a"][0] == 1.0
    assert isnan(samples.columns["a"][1])
    assert isnan(samples.columns["b"][0])
    assert (samples.last("a"), samples.last("b")) == (1.0, 2.0)
    assert isnan(samples.last("c"))


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.25, 5.0), (0.5, 10.0), (0.75, 15.0), (0.9, 18.0), (1.0, 20.0)]
)
def test_quantiles_lie_evenly_in_their_bucket(share: float, wanted: float) -> None:
    buckets = {10e-6: 50.0, 20e-6: 100.0, inf: 100.0}
    assert quantile_us(buckets, share) == pytest.approx(wanted)


def test_quantiles_of_nothing_and_beyond_all() -> None:
    assert isnan(quantile_us({}, 0.5))
    assert isnan(quantile_us({1e-6: 0.0, inf: 0.0}, 0.5))
    assert quantile_us({10e-6: 1.0, inf: 100.0}, 0.99) == pytest.approx(10.0)


def test_metrics_are_read_by_label_and_summed() -> None:
    assert by_label(TEXT, "tradeback_tasks", "process") == {"engine": 24.0, "worker:0": 7.0}
    assert plain(TEXT, "tradeback_feed_lagged_total") == 5.0
    assert isnan(plain(TEXT, "tradeback_none"))


def test_clients_become_columns() -> None:
    found = client_values({"windows": {"v2 all": {"p50": 1.0, "p99": 2.0}, "quiet": {}}, "lost": 3})
    assert found == {"client:p50:v2 all": 1.0, "client:p99:v2 all": 2.0, "lost": 3.0}


def test_a_process_is_read() -> None:
    before = open_files(os.getpid())
    with open(os.devnull):
        assert open_files(os.getpid()) == before + 1
    assert threads(os.getpid()) >= 1


@pytest.mark.parametrize(
    ("minutes", "wanted"), [(0.1, 8_192), (1.0, 16_384), (5.0, 131_072), (480.0, 131_072)]
)
def test_the_ring_is_full_after_a_quarter_of_the_time(minutes: float, wanted: int) -> None:
    assert hot_rows(2_000.0, minutes * 60) == wanted


def test_the_load_in_words_and_for_the_simulator() -> None:
    options = Options(2.0, faults=7, workers=2)
    assert options.market[-2:] == ["--faults", "seed:7:120s"]
    assert options.load == "2,000 events/s of 20 symbols on two lines, faults of seed 7, 2 feed workers"
    assert "--faults" not in Options(nan).market
