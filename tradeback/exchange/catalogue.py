"""Descriptions of symbols for those that come later: from the start's exchangeInfo, else asked one by one.

Asking for all of them again would hold the loop up for tens of ms, so a name that is not in it is asked for
by itself, a few at a time. What the exchange does not have is remembered and not asked for again for long.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tradeback.exchange.rest import Rest
from tradeback.ingest.names import name_words
from tradeback.model.clock import Clock
from tradeback.model.errors import ExchangeError
from tradeback.stores.ports import SymbolRecord

ASKS_AT_ONCE = 5
"""Names asked for in one `find`, each of weight 20."""
UNKNOWN_S = 3_600.0
"""How long a name that the exchange does not have is not asked for again."""
UNKNOWN_MAX = 10_000
"""Names remembered so; beyond that the oldest are forgotten."""


@dataclass(slots=True)
class Found:
    """What `find` came to."""

    records: list[SymbolRecord]
    unknown: list[str]
    """The exchange does not have these, or writes them in a way that the kernels cannot read."""
    left: list[str]
    """Not known yet: call again, at once unless there is an `error`."""
    error: ExchangeError | None = None
    """Why the exchange could not be asked for these."""


class Catalogue:
    """One per engine. Loop thread only."""

    def __init__(self, rest: Rest, records: Iterable[SymbolRecord], clock: Clock) -> None:
        self._rest, self._clock = rest, clock
        self._records = {record.symbol: record for record in records}
        self._unknown: dict[str, int] = {}
        """Since when (steady ns), the oldest first."""
        self.asked = 0

    def lists(self, name: str) -> bool:
        """Whether the exchange is known to have this symbol."""
        return name in self._records

    async def find(self, names: Iterable[str]) -> Found:
        """The descriptions of `names`, as far as they can be had now."""
        found, left, asked = Found([], [], []), [], 0
        for name in names:
            if name in self._records:
                found.records.append(self._records[name])
            elif self._is_unknown(name) or not _is_legible(name):
                found.unknown.append(name)
            else:
                left.append(name)
        for name in left:
            if asked == ASKS_AT_ONCE or found.error is not None:
                found.left.append(name)
                continue
            asked += 1
            self.asked += 1
            try:
                record = await self._rest.symbol(name)
            except ExchangeError as error:
                found.error = error
                found.left.append(name)
                continue
            if record is None:
                self._remember(name)
                found.unknown.append(name)
            else:
                self._records[name] = record
                found.records.append(record)
        return found

    def _is_unknown(self, name: str) -> bool:
        since_ns = self._unknown.get(name)
        if since_ns is None:
            return False
        if self._clock.steady_ns() - since_ns < UNKNOWN_S * 1e9:
            return True
        del self._unknown[name]
        return False

    def _remember(self, name: str) -> None:
        self._unknown[name] = self._clock.steady_ns()
        if len(self._unknown) > UNKNOWN_MAX:
            del self._unknown[next(iter(self._unknown))]


def _is_legible(name: str) -> bool:
    try:
        name_words(name.encode())
    except ValueError:
        return False
    return True
