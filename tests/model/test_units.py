"""model.units: what is written reads back, and nothing else is accepted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.model.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15s", 15.0), ("50ms", 0.05), ("5m", 300.0), ("1h30m", 5_400.0), ("7d", 604_800.0), ("0", 0.0),
     ("1.5s", 1.5), ("250us", 0.00025), ("250µs", 0.00025), ("10ns", 1e-8), (" 2w ", 1_209_600.0)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "15", "s", "15 s", "-1s", "1s5", "s1", "1e3s", "nan", "infs", "٣s", "1,5s"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="a number and a unit"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("67108864", 67_108_864), ("64MiB", 67_108_864), ("64 mib", 67_108_864), ("1.5KiB", 1_536),
     ("20GB", 20_000_000_000), ("1TiB", 1 << 40), ("7B", 7)],
)  # fmt: skip
def test_sizes(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "1.3", "0.5B", "-1", "1e6", "64M", "64MiBs", "٣KiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="a size is"):
        parse_size(text)


@given(st.floats(0, 1e9, allow_nan=False))
def test_a_duration_reads_back_exactly_if_it_is_whole_nanoseconds(seconds: float) -> None:
    rounded = round(seconds, 9)
    assert parse_duration(format_duration(rounded)) == rounded


@given(st.integers(0, 2**50))
def test_a_size_reads_back(count: int) -> None:
    assert parse_size(format_size(count)) == count
