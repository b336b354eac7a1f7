"""What a client wants, by channel, and the requests that ask for it. Pure.

A reconnecting client must subscribe by one request: the engine applies `resume` to the first one. When its
channels want different symbols, it asks for all of them in all channels, gives back what is too much as
soon as it knows its names, and leaves out what of it comes meanwhile.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tradeback.model.limits import SYMBOLS_PER_REQUEST_MAX

EVERY: Final = "*"
Request = dict[str, Any]


class Wants:
    """Channel -> names of symbols, in upper case; `{"*"}` is all of them."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._names)

    def add(self, symbols: Iterable[str], channels: Iterable[str]) -> None:
        """Want these, too."""
        more = frozenset(name.upper() for name in symbols)
        for channel in channels:
            joined = self._names.get(channel, frozenset()) | more
            self._names[channel] = frozenset({EVERY}) if EVERY in joined else joined

    def remove(self, symbols: Iterable[str], channels: Iterable[str], known: Iterable[str]) -> None:
        """Want these no more. Taking some from all leaves the rest of the `known` ones."""
        gone = frozenset(name.upper() for name in symbols)
        for channel in channels:
            held = self._names.get(channel, frozenset())
            if EVERY in gone:
                held = frozenset()
            elif EVERY in held:
                held = frozenset(known) - gone
            else:
                held -= gone
            self._names.pop(channel, None)
            if held:
                self._names[channel] = held

    @property
    def everything(self) -> bool:
        """Whether any channel wants all symbols, also those to come."""
        return any(EVERY in names for names in self._names.values())

    @property
    def even(self) -> bool:
        """Whether all channels want the same symbols, and one request can name them."""
        cover = self._cover()
        return all(names == cover for names in self._names.values())

    def _cover(self) -> frozenset[str]:
        joined = frozenset().union(*self._names.values())
        return (
            joined if EVERY not in joined and len(joined) <= SYMBOLS_PER_REQUEST_MAX else frozenset({EVERY})
        )

    def request(self) -> Request:
        """One subscribe that brings all that is wanted, perhaps more."""
        return {"type": "subscribe", "symbols": sorted(self._cover()), "channels": sorted(self._names)}

    def excess(self, known: Iterable[str]) -> list[Request]:
        """What gives back the rest, once the names of the covered symbols are `known`."""
        found = []
        for channel, names in sorted(self._names.items()):
            spare = [] if EVERY in names else sorted(frozenset(known) - names)
            for start in range(0, len(spare), SYMBOLS_PER_REQUEST_MAX):
                part = spare[start : start + SYMBOLS_PER_REQUEST_MAX]
                found.append({"type": "unsubscribe", "symbols": part, "channels": [channel]})
        return found

    def ids(self, channel: str, ids_by_name: Mapping[str, int]) -> frozenset[int] | None:
        """Wire ids of what is wanted of a channel; None: all."""
        names = self._names.get(channel, frozenset())
        if EVERY in names:
            return None
        return frozenset(ids_by_name[name] for name in names if name in ids_by_name)
