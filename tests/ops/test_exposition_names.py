"""ops.exposition against the conventions of names; the check itself is tested on what breaks them."""

import pytest

from tests.ops.metric_names import problems
from tradeback.ops.exposition import render
from tradeback.ops.metrics import Family, Histogram


def test_good_families_pass() -> None:
    held = Histogram()
    held.observe(150)
    held.observe(2_000_000)
    families = [
        Family("tradeback_feed_clients", "gauge", "Clients.").add(3.0).add(4.0, worker="0"),
        Family("tradeback_line_bytes", "counter", "Bytes.").add(1.0, line="a").add(2.0, line="b"),
        Family("tradeback_publish_latency_seconds", "histogram", "Time.").add(held),
    ]
    assert list(problems(render(families).decode())) == []


@pytest.mark.parametrize(
    "wrong",
    [
        Family("tradeback_clock_offset_ms", "gauge", "In ms.").add(1.0),
        Family("tradeback_load_percent", "gauge", "In percent.").add(1.0),
        Family("tradebackClients", "gauge", "Camels.").add(1.0),
        Family("other_clients", "gauge", "No prefix.").add(1.0),
        Family("tradeback_clients", "gauge", "").add(1.0),
        Family("tradeback_lines", "gauge", "Labels differ.").add(1.0, line="a").add(1.0, stream="trade"),
        Family("tradeback_lines", "gauge", "Twice.").add(1.0, line="a").add(2.0, line="a"),
        Family("tradeback_line_count", "gauge", "Named like a histogram's.").add(1.0),
        Family("tradeback_time", "histogram", "No unit.").add(Histogram()),
        Family("tradeback_time_seconds", "histogram", "Coarse.").add(Histogram((10, 1_000, 1_000_000))),
        Family("tradeback_lines", "gauge", "Reserved.").add(1.0, job="x"),
    ],
    ids=lambda family: f"{family.name} {family.help}",
)
def test_what_breaks_the_conventions_is_found(wrong: Family) -> None:
    assert list(problems(render([wrong]).decode()))


def test_quantiles_can_be_told_from_microseconds_to_seconds() -> None:
    """As histogram_quantile does it: the bucket's bounds are at most 2.5 times apart, so is the answer."""
    for value_us in (30, 150, 900, 4_000, 60_000, 400_000, 1_500_000, 8_000_000):
        held = Histogram()
        held.observe(value_us, 100)
        for share in (0.5, 0.95, 0.99):
            assert value_us <= held.quantile_us(share) <= 2.5 * value_us
