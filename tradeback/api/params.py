"""Query parameters, each checked, each error naming the parameter and what it may be. Pure."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation

import orjson

from tradeback.api.errors import ApiError

SECONDS_MAX = 100_000_000_000
"""Unix seconds of the year 5138: more than that is milliseconds by mistake."""


def _bad(message: str) -> ApiError:
    return ApiError(400, "bad_request", message)


def seconds_us(query: Mapping[str, str], name: str) -> int | None:
    """Unix seconds, whole or decimal, as us since 1970; None when it is not there."""
    text = query.get(name)
    if text is None or text == "":
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or value < 0:
        raise _bad(f"{name} is {text[:40]!r}; it must be a time in unix seconds, such as 1700000000")
    if value > SECONDS_MAX:
        raise _bad(f"{name} is {text[:40]!r}; it is in unix seconds, not milliseconds")
    return int(value * 1_000_000)


def time_range(query: Mapping[str, str]) -> tuple[int | None, int | None]:
    """`from` (inclusive) and `to` (exclusive) in us; either may be missing."""
    from_us, to_us = seconds_us(query, "from"), seconds_us(query, "to")
    if from_us is not None and to_us is not None and from_us > to_us:
        raise _bad("from is after to; from is inclusive, to exclusive, both in unix seconds")
    return from_us, to_us


def milliseconds(query: Mapping[str, str], name: str) -> int | None:
    """Unix milliseconds; None when it is not there."""
    text = query.get(name)
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 14):
        raise _bad(f"{name} is {text[:40]!r}; it must be a time in unix milliseconds, such as 1700000000000")
    return int(text)


def whole_number(query: Mapping[str, str], name: str, default: int, largest: int) -> int:
    """A number from 1 to `largest`."""
    text = query.get(name)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 12 and 1 <= int(text) <= largest):
        raise _bad(f"{name} is {text[:40]!r}; it must be a whole number from 1 to {largest}")
    return int(text)


def one_of(query: Mapping[str, str], name: str, default: str, allowed: Sequence[str]) -> str:
    """One of a few words."""
    text = query.get(name, default)
    if text not in allowed:
        raise _bad(f"{name} is {text[:40]!r}; it must be one of {', '.join(allowed)}")
    return text


def write_cursor(*words: int | None) -> str:
    """Numbers as an opaque word for a URL."""
    return base64.urlsafe_b64encode(orjson.dumps(words)).decode().rstrip("=")


def read_cursor(query: Mapping[str, str], count: int) -> list[int | None] | None:
    """The numbers of a cursor; None when there is none in the query."""
    text = query.get("cursor")
    if text is None or text == "":
        return None
    try:
        padded = text + "=" * (-len(text) % 4)
        words = orjson.loads(base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True))
    except (binascii.Error, UnicodeEncodeError, orjson.JSONDecodeError):
        words = None
    if not isinstance(words, list) or len(words) != count or not all(map(_is_word, words)):
        raise _bad("cursor is not one that this server gave out; leave it away to start anew")
    return words


def _is_word(word: object) -> bool:
    return word is None or (type(word) is int and 0 <= word < 1 << 63)
