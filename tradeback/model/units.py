"""Durations and sizes as people write them: 15s, 50ms, 1h30m, 64MiB."""

import re
from fractions import Fraction

DURATION_UNITS_S: dict[str, Fraction] = {
    "ns": Fraction(1, 1_000_000_000),
    "us": Fraction(1, 1_000_000),
    "ms": Fraction(1, 1_000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3_600),
    "d": Fraction(86_400),
    "w": Fraction(604_800),
}
"""Seconds in each unit. `m` is a minute, as everywhere durations are written."""

SIZE_UNITS_BYTES: dict[str, int] = {
    "b": 1,
    "kb": 1_000,
    "mb": 1_000_000,
    "gb": 1_000_000_000,
    "tb": 1_000_000_000_000,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
}
"""Bytes in each unit, in lower case."""

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d|w)", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b)?", re.ASCII | re.IGNORECASE)


def parse_duration(text: str) -> float:
    """Seconds of `15s`, `50ms`, `1h30m`; ValueError when it is not written so. `0` needs no unit."""
    text = text.strip()
    if text == "0":
        return 0.0
    total, position = Fraction(0), 0
    for part in _DURATION_PART.finditer(text):
        if part.start() != position:
            break
        total += Fraction(part[1]) * DURATION_UNITS_S[part[2].replace("µ", "u")]
        position = part.end()
    if position == 0 or position != len(text):
        raise ValueError("a duration is a number and a unit, like 50ms, 15s, 5m, 2h or 7d")
    return float(total)


def parse_size(text: str) -> int:
    """Bytes of `67108864`, `64MiB`, `1.5GB`; ValueError when it is not written so or not whole."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError("a size is a number of bytes, or a number and a unit, like 64KiB, 64MiB or 20GiB")
    exact = Fraction(found[1]) * SIZE_UNITS_BYTES[(found[2] or "b").lower()]
    if exact.denominator != 1:
        raise ValueError("a size is a whole number of bytes")
    return int(exact)


def format_duration(seconds: float) -> str:
    """The shortest single-unit form that reads back as the same number: 0.05 -> `50ms`, 604800 -> `7d`."""
    exact = Fraction(repr(seconds))
    if exact == 0:
        return "0s"
    for unit in ("d", "h", "m", "s", "ms", "us", "ns"):
        count = exact / DURATION_UNITS_S[unit]
        if count.denominator == 1:
            return f"{count}{unit}"
    return f"{exact.numerator / exact.denominator:f}s"


def format_size(count: int) -> str:
    """Bytes in the largest binary unit that divides them: 67108864 -> `64MiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        factor = SIZE_UNITS_BYTES[unit.lower()]
        if count and count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)
