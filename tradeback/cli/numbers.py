"""Numbers as the terminal shows them: the page's own ways (`web/js/numbers.js`), in Python. Pure."""

import math
from datetime import UTC, datetime

UNKNOWN = "–"
_STEPS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def fixed(value: float | None, digits: int) -> str:
    """A price or quantity with a fixed number of decimals: 1,234.50."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def whole(value: float | None) -> str:
    """A whole number: 1,234."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{math.floor(value + 0.5):,}"


def compact(value: float | None) -> str:
    """Three digits and a letter: 12345 -> 12.3k."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    for unit, letter in _STEPS:
        if abs(value) >= unit * 0.9995:
            return _significant(value / unit) + letter
    return _significant(value)


def _significant(value: float) -> str:
    size = abs(value)
    if size == 0:
        return "0"
    return f"{value:.{0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 4}f}"


def percent(share: float | None, digits: int = 2) -> str:
    """A share with its sign: 0.0123 -> +1.23 %."""
    if share is None or not math.isfinite(share):
        return UNKNOWN
    text = f"{100 * share:.{digits}f}"
    sign = "" if float(text) == 0 else "+" if share > 0 else "−"
    return f"{sign}{text.replace('-', '')} %"


def duration(us: float | None) -> str:
    """A time span with its unit: 14 -> 14 µs, 12345 -> 12.3 ms."""
    if us is None or not math.isfinite(us):
        return UNKNOWN
    for below, unit, digits, name in (
        (999.5, 1, 0, "µs"),
        (9_995, 1e3, 2, "ms"),
        (99_950, 1e3, 1, "ms"),
        (999_500, 1e3, 0, "ms"),
        (99.95e6, 1e6, 1, "s"),
        (5_970e6, 60e6, 0, "min"),
        (47 * 3_600e6, 3_600e6, 0, "h"),
    ):
        if abs(us) < below:
            return f"{us / unit:.{digits}f} {name}"
    return f"{us / 86_400e6:.0f} d"


def clock(ms: float | None) -> str:
    """Unix milliseconds as HH:MM:SS, UTC."""
    if ms is None or not math.isfinite(ms):
        return UNKNOWN
    return datetime.fromtimestamp(ms // 1_000, UTC).strftime("%H:%M:%S")
