"""Decimal strings: what the kernels take, everyone takes, and nothing else."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tradeback.model.decimal_text import decimal_float, decimal_floats

LIKE_NUMBERS = st.text("0123456789.+-eE_, x\n\u0665", max_size=12) | st.text("0123456789.", max_size=400)


def is_decimal(text: str) -> bool:
    whole, point, fraction = text.partition(".")
    digits = [whole, fraction] if point else [whole]
    return all(part and set(part) <= set("0123456789") for part in digits)


@given(LIKE_NUMBERS | st.text(max_size=8))
@example("1e3")
@example("1_000")
@example("-0")
@example("5\n")
@example("9" * 400)
def test_one(text: str) -> None:
    if is_decimal(text) and math.isfinite(float(text)):
        assert np.float64(decimal_float(text)).tobytes() == np.float64(text).tobytes()
        return
    with pytest.raises(ValueError, match="no decimal number") as said:
        decimal_float(text)
    assert len(str(said.value)) < 120, "what a log line gets stays short"


@given(st.lists(st.floats(0, 1e15).map(lambda value: f"{value:.8f}"), max_size=5), st.none() | LIKE_NUMBERS)
def test_several_are_as_one_by_one(texts: list[str], odd: str | None) -> None:
    texts = texts if odd is None else [*texts, odd, "1.0"]
    try:
        expected = [decimal_float(text) for text in texts]
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - float's own words where it refuses
            decimal_floats(texts)
    else:
        assert decimal_floats(texts) == expected
