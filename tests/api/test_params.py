"""api/params: times, numbers, words and cursors; whatever comes is a value or a 400."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.api.errors import ApiError
from tradeback.api.params import (
    milliseconds,
    one_of,
    read_cursor,
    seconds_us,
    time_range,
    whole_number,
    write_cursor,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1700000000", 1_700_000_000_000_000),
        ("1700000000.123456", 1_700_000_000_123_456),
        ("0.0000019", 1),
        ("1e3", 1_000_000_000),
        ("", None),
    ],
)
def test_seconds(text: str, expected: int | None) -> None:
    assert seconds_us({"from": text}, "from") == expected


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1700000000000", "1e99999", "x", "1 2", "٣٤x"])
def test_bad_seconds_name_the_parameter(text: str) -> None:
    with pytest.raises(ApiError, match=r"from is .* unix seconds") as refused:
        seconds_us({"from": text}, "from")
    assert refused.value.status == 400


def test_ranges() -> None:
    assert time_range({"from": "1", "to": "1"}) == (1_000_000, 1_000_000)
    assert time_range({}) == (None, None)
    with pytest.raises(ApiError, match="from is after to"):
        time_range({"from": "2", "to": "1"})


def test_numbers_and_words() -> None:
    assert whole_number({}, "limit", 5, 10) == 5
    assert whole_number({"limit": "10"}, "limit", 5, 10) == 10
    for text in ("0", "11", "-1", "1.5", "٣", "9" * 30):
        with pytest.raises(ApiError, match=r"limit .* from 1 to 10"):
            whole_number({"limit": text}, "limit", 5, 10)
    assert one_of({}, "resolution", "1m", ("1s", "1m")) == "1m"
    with pytest.raises(ApiError, match="1s, 1m"):
        one_of({"resolution": "1M"}, "resolution", "1m", ("1s", "1m"))
    assert milliseconds({"at": "1700000000000"}, "at") == 1_700_000_000_000
    for text in ("-1", "1.5", "9" * 20):
        with pytest.raises(ApiError, match="unix milliseconds"):
            milliseconds({"at": text}, "at")


@given(st.lists(st.none() | st.integers(0, 2**63 - 1), min_size=3, max_size=3))
def test_cursors_come_back(words: list[int | None]) -> None:
    text = write_cursor(*words)
    assert text.isascii()
    assert read_cursor({"cursor": text}, 3) == words


@given(st.text(max_size=40) | st.binary(max_size=20).map(lambda raw: raw.hex()))
def test_any_other_cursor_is_refused(text: str) -> None:
    try:
        words = read_cursor({"cursor": text}, 3)
    except ApiError:
        return
    assert words is None or len(words) == 3
