"""Query strings of REST: reading parameters, and the errors when they are wrong. Pure; section 7.1."""

import re
from collections.abc import Iterable

import orjson

from tradeback.sim.book import Book
from tradeback.sim.chart import INTERVALS

_NUMBER = re.compile(r"[0-9]{1,20}")
_ILLEGAL = re.compile(r"[\s<>'\"`;&|\\]")
EARLIEST_MS = 1_483_228_800_000
"""2017-01-01: no market is older. Bounds below are clamped."""
MICROSECONDS_FROM = 10**14
"""A time with this or more is in us."""


class RestError(Exception):
    """An error of the API: HTTP status, code, message."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class Query:
    """The parameters of one request. Every one must be read, or `done()` refuses the rest."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, str] = {}
        self._read: set[str] = set()
        for name, value in pairs:
            if name in self._values:
                raise RestError(-1101, f"Duplicate values for parameter '{name}'.")
            self._values[name] = value

    def text(self, name: str) -> str | None:
        """A parameter as it was sent; None when it was not, -1105 when it is empty."""
        self._read.add(name)
        value = self._values.get(name)
        if value == "":
            raise RestError(-1105, f"Parameter '{name}' was empty.")
        if value is not None and name != "symbols" and _ILLEGAL.search(value):
            raise RestError(-1100, f"Illegal characters found in parameter '{name}'.")
        return value

    def required(self, name: str) -> str:
        """A parameter that must be there."""
        value = self.text(name)
        if value is None:
            raise RestError(
                -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
            )
        return value

    def number(self, name: str) -> int | None:
        """A non-negative integer."""
        value = self.text(name)
        if value is None:
            return None
        if not _NUMBER.fullmatch(value):
            raise RestError(
                -1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."
            )
        return int(value)

    def limit(self, default: int, most: int) -> int:
        """`limit`: 0 is refused, too many are served as the most."""
        value = self.number("limit")
        if value == 0:
            raise RestError(-1130, "Data sent for parameter 'limit' is not valid.")
        return min(default if value is None else value, most)

    def time_us(self, name: str) -> int | None:
        """A time sent in ms or us, in us; clamped below."""
        value = self.number(name)
        if value is None:
            return None
        return max(value if value >= MICROSECONDS_FROM else value * 1_000, EARLIEST_MS * 1_000)

    def interval(self) -> str:
        """`interval`."""
        value = self.required("interval")
        if value not in INTERVALS:
            raise RestError(-1120, "Invalid interval.")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """A boolean."""
        value = self.text(name)
        if value is None:
            return default
        if value.lower() not in ("true", "false"):
            raise RestError(-1130, f"Data sent for parameter '{name}' is not valid.")
        return value.lower() == "true"

    def choice(self, name: str, allowed: tuple[str, ...], default: str, code: int = -1130) -> str:
        """One of some words; the first wrong one is refused with `code`."""
        value = self.text(name)
        if value is None:
            return default
        if value not in allowed:
            raise RestError(code, f"Data sent for parameter '{name}' is not valid.")
        return value

    def book(self, books: dict[str, Book]) -> Book:
        """The one symbol that must be named."""
        return _find(books, self.required("symbol"))

    def books(self, books: dict[str, Book]) -> tuple[list[Book], bool]:
        """The symbols meant by `symbol`, `symbols` or neither (all); and whether it was `symbol`."""
        one, many = self.text("symbol"), self.text("symbols")
        if one is not None and many is not None:
            raise RestError(-1128, "Combination of optional parameters invalid.")
        if one is not None:
            return [_find(books, one)], True
        if many is None:
            return list(books.values()), False
        try:
            names = orjson.loads(many)
        except orjson.JSONDecodeError:
            names = None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise RestError(-1135, "Invalid JSON Request for parameter 'symbols'.")
        if len(set(names)) != len(names):
            raise RestError(-1151, "Symbol is present multiple times in the list.")
        return [_find(books, name) for name in names], False

    def done(self) -> None:
        """-1104 when something was sent that the endpoint does not know."""
        unread = [name for name in self._values if name not in self._read]
        if unread:
            read = len(self._values) - len(unread)
            raise RestError(
                -1104,
                f"Not all sent parameters were read; read '{read}' parameter(s) but was sent "
                f"'{len(self._values)}'.",
            )


def _find(books: dict[str, Book], name: str) -> Book:
    book = books.get(name)
    if book is None:
        raise RestError(-1121, "Invalid symbol.")
    return book
