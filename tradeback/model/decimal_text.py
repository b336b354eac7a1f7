"""Decimal strings as the exchange writes them: digits, and a point with digits behind it or none. Pure.

float() takes more: exponents, underscores, blanks, digits of other scripts. The kernels take none of these,
and nobody else may: a price that only one of two readers understands is one that nobody has sent.
"""

import re
from collections.abc import Sequence
from math import isfinite
from typing import Final

_DECIMAL: Final = "[0-9]+(?:\\.[0-9]+)?"
_ONE: Final = re.compile(_DECIMAL)
_SEVERAL: Final = re.compile(f"(?:{_DECIMAL}(?:,{_DECIMAL})*)?")


def decimal_float(text: str) -> float:
    """The nearest float64, finite and from 0 up. Raises ValueError."""
    value = float(text) if _ONE.fullmatch(text) else -1.0
    if value < 0 or not isfinite(value):
        raise ValueError(f"{text[:40]!r} is no decimal number from 0 up")
    return value


def decimal_floats(texts: Sequence[str]) -> list[float]:
    """The same of many. Raises ValueError for any that is none."""
    values = list(map(float, texts))
    if not _SEVERAL.fullmatch(",".join(texts)) or not all(map(isfinite, values)):
        raise ValueError("one of them is no decimal number from 0 up")
    return values
