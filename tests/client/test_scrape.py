"""client.scrape reads back what ops.exposition wrote."""

from hypothesis import given
from hypothesis import strategies as st

from tradeback.client.scrape import histogram, quantile, since
from tradeback.ops.exposition import render
from tradeback.ops.metrics import Family, Histogram

values = st.lists(st.integers(0, 9_000_000), max_size=40)


def text_of(**held: Histogram) -> str:
    family = Family("tradeback_hop_seconds", "histogram", "hop")
    for line, one in held.items():
        family.add(one, line=line)
    return render([family, Family("tradeback_hop", "gauge", "other").add(5)]).decode()


def counted(numbers: list[int]) -> Histogram:
    held = Histogram()
    for number in numbers:
        held.observe(number)
    return held


@given(values, values, st.sampled_from((0.01, 0.5, 0.99, 1.0)))
def test_quantiles_of_what_passed_between_two_readings(
    first: list[int], then: list[int], share: float
) -> None:
    before = histogram(text_of(a=counted(first)), "tradeback_hop_seconds")
    now = histogram(text_of(a=counted(first + then)), "tradeback_hop_seconds")
    alone = counted(then)
    wanted = alone.quantile_us(share) / 1e6 if then else None
    assert quantile(since(before, now), share) == wanted


@given(values, values)
def test_label_sets_are_summed_or_chosen(first: list[int], second: list[int]) -> None:
    text = text_of(a=counted(first), b=counted(second))
    assert max(histogram(text, "tradeback_hop_seconds").values()) == len(first) + len(second)
    assert max(histogram(text, "tradeback_hop_seconds", {"line": "b"}).values()) == len(second)


def test_a_metric_that_is_missing_is_empty() -> None:
    assert histogram("", "tradeback_hop_seconds") == {}
    assert quantile({}, 0.5) is None


def test_beyond_all_bounds_the_largest_is_named() -> None:
    text = text_of(a=counted([60_000_000]))
    assert quantile(histogram(text, "tradeback_hop_seconds"), 0.5) == 10.0
