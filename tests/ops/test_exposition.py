"""ops.exposition: the text is what Prometheus' own parser reads back as the numbers that went in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tradeback.ops.exposition import render
from tradeback.ops.metrics import Family, Histogram

labels = st.dictionaries(st.sampled_from(("symbol", "line")), st.text(max_size=8), max_size=2)


def read_back(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@given(st.lists(st.tuples(labels, st.floats(allow_nan=False)), max_size=5))
def test_gauges_and_counters_read_back(samples: list[tuple[dict[str, str], float]]) -> None:
    gauge = Family("tradeback_lag", "gauge", 'how "far"\nbehind')
    counter = Family("tradeback_frames", "counter", "frames")
    for sample_labels, value in samples:
        gauge.add(value, **sample_labels)
        counter.add(value, **sample_labels)
    wanted = {}
    for sample_labels, value in samples:
        key = tuple(sorted(sample_labels.items()))
        wanted["tradeback_lag", key] = value
        wanted["tradeback_frames_total", key] = value
    assert read_back(render([gauge, counter])) == wanted


@given(st.lists(st.integers(-10, 20_000_000), max_size=50))
def test_a_histogram_of_us_is_cumulative_and_in_seconds(values_us: list[int]) -> None:
    held = Histogram()
    for value in values_us:
        held.observe(value)
    read = read_back(render([Family("tradeback_hop_seconds", "histogram", "hop").add(held, hop="x")]))
    counted = [max(value, 0) for value in values_us]
    for bound in held.bounds.tolist():
        key = ("tradeback_hop_seconds_bucket", (("hop", "x"), ("le", repr(bound / 1e6))))
        assert read[key] == sum(value <= bound for value in counted)
    assert read["tradeback_hop_seconds_bucket", (("hop", "x"), ("le", "+Inf"))] == len(counted)
    assert read["tradeback_hop_seconds_count", (("hop", "x"),)] == len(counted)
    assert read["tradeback_hop_seconds_sum", (("hop", "x"),)] == sum(counted) / 1e6


def test_families_of_one_name_are_joined() -> None:
    text = render(
        [
            Family("tradeback_x", "counter", "x").add(1, line="a"),
            Family("tradeback_y", "gauge", "y").add(2),
            Family("tradeback_x", "counter", "x").add(3, line="b"),
        ]
    )
    assert text.decode().count("# TYPE tradeback_x") == 1
    assert read_back(text)["tradeback_x_total", (("line", "b"),)] == 3


def test_one_name_cannot_be_two_kinds() -> None:
    with pytest.raises(ValueError, match="tradeback_x is both a counter and a gauge"):
        render([Family("tradeback_x", "counter", "x"), Family("tradeback_x", "gauge", "x")])
