"""Which connections carry a symbol while symbols come and go. Pure.

A *shard* is one connection for each stream kind and line; a symbol's streams are all on the connections of
one shard, so a place in a shard is a place on each of them. What is carried is never moved: a symbol that
comes takes a free place of the emptiest shard, or a new shard is opened; a shard without symbols is closed.
"""

from collections.abc import Iterable, Mapping, Sequence

from tradeback.exchange.streams import STREAMS, LinePlan
from tradeback.model.limits import STREAMS_PER_CONNECTION_MAX


class Placement:
    """The shards with their symbols. `places`: how many symbols one holds."""

    def __init__(
        self,
        shards: Mapping[int, Iterable[str]],
        lines: int,
        connections_max: int,
        places: int = STREAMS_PER_CONNECTION_MAX,
    ) -> None:
        """ValueError when a shard holds more than its places, or one symbol is in two."""
        self._shards = {number: dict.fromkeys(names) for number, names in shards.items()}
        self._of = {name: number for number, names in self._shards.items() for name in names}
        self._places = places
        # One connection is kept free: the one that replaces another in a rollover.
        self.shards_max = max(0, (connections_max - 1) // (len(STREAMS) * lines))
        """How many shards the allowed number of connections makes."""
        if len(self._of) < sum(map(len, self._shards.values())):
            raise ValueError("a symbol is in two shards")
        if any(len(names) > places for names in self._shards.values()):
            raise ValueError(f"a shard holds {places} symbols at the most")

    @classmethod
    def of(cls, plans: Sequence[LinePlan], lines: int, connections_max: int) -> "Placement":
        """As `plan_lines` has spread them."""
        return cls({plan.shard: plan.symbols for plan in plans}, lines, connections_max)

    def __len__(self) -> int:
        return len(self._of)

    def __contains__(self, name: object) -> bool:
        return name in self._of

    @property
    def shards(self) -> dict[int, tuple[str, ...]]:
        """Symbols by shard, in the order in which they came."""
        return {number: tuple(names) for number, names in self._shards.items()}

    @property
    def room(self) -> int:
        """How many symbols more can be carried."""
        return max(0, max(self.shards_max, len(self._shards)) * self._places - len(self._of))

    def shard_of(self, name: str) -> int | None:
        """Where a symbol is carried."""
        return self._of.get(name)

    def add(self, names: Iterable[str]) -> dict[int, list[str]]:
        """Give places to these; what came by shard, among them shards that are new. What is carried already
        stays where it is, and what finds no place is left out: see `room`."""
        came: dict[int, list[str]] = {}
        for name in names:
            number = None if name in self._of else self._place()
            if number is not None:
                self._shards[number][name] = None
                self._of[name] = number
                came.setdefault(number, []).append(name)
        return came

    def remove(self, names: Iterable[str]) -> dict[int, list[str]]:
        """Give up the places of these; what went by shard. A shard that is empty now is gone."""
        went: dict[int, list[str]] = {}
        for name in names:
            number = self._of.pop(name, None)
            if number is not None:
                del self._shards[number][name]
                went.setdefault(number, []).append(name)
                if not self._shards[number]:
                    del self._shards[number]
        return went

    def _place(self) -> int | None:
        """A shard with a free place, opened if need be; None when there can be none."""
        number = min(self._shards, key=lambda shard: (len(self._shards[shard]), shard), default=None)
        if number is not None and len(self._shards[number]) < self._places:
            return number
        if len(self._shards) >= self.shards_max:
            return None
        free = next(shard for shard in range(len(self._shards) + 1) if shard not in self._shards)
        self._shards[free] = {}
        return free
