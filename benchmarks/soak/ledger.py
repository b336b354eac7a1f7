"""Who got what: trades by id for one v2 client, and v1 against v2 entry by entry. Pure.

An id that is jumped over is a hole. It is closed when the trade comes late, when a stand-in has its place, or
when the engine says that the exchange does not have it. A hole that stays is a lost trade.
"""

from collections import defaultdict, deque
from math import isclose

from tradeback.derive.completeness_ranges import IdRanges
from tradeback.model.record import REPAIRED, STAND_IN

GRACE_S = 60.0
"""How long a hole may stay until it counts as a loss: repair has limits to keep."""
ALIGN_ENTRIES = 4
"""So many entries at least must agree where the two versions' streams are laid side by side."""
APART_MAX = 20_000
"""Entries of one symbol that one side may be ahead of the other."""


class Ledger:
    """Trade ids of one client, all symbols. Times are any seconds that rise."""

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self.trades = self.doubled = self.repaired = self.late = 0
        self.stood_in = self.unrepairable = 0
        self._grace_s = grace_s
        self._first: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._holes: dict[int, dict[int, float]] = defaultdict(dict)
        self._given_up: dict[int, IdRanges] = defaultdict(IdRanges)

    def trade(self, symbol_id: int, trade_id: int, first_id: int, flags: int, now_s: float) -> None:
        """A trade, or a stand-in for the holes of first_id..trade_id."""
        due = self._next.get(symbol_id)
        if flags & STAND_IN:
            self.stood_in += self._close(symbol_id, first_id, trade_id)
            return
        self.trades += 1
        self.repaired += flags & REPAIRED != 0
        if due is None:
            self._first[symbol_id] = trade_id
        elif trade_id > due:
            self._holes[symbol_id].update(dict.fromkeys(range(due, trade_id), now_s))
        elif trade_id < due:
            self._behind(symbol_id, trade_id)
            return
        self._next[symbol_id] = trade_id + 1

    def _behind(self, symbol_id: int, trade_id: int) -> None:
        if self._holes[symbol_id].pop(trade_id, None) is not None:
            self.late += 1
        elif trade_id in self._given_up[symbol_id]:
            self._given_up[symbol_id].take(trade_id, trade_id)
            self.unrepairable -= 1
        elif trade_id >= self._first[symbol_id]:
            self.doubled += 1

    def give_up(self, symbol_id: int, first_id: int, last_id: int) -> None:
        """The engine says that these ids are not to be had: what is missing of them is no loss of its own."""
        for trade_id in [held for held in self._holes[symbol_id] if first_id <= held <= last_id]:
            del self._holes[symbol_id][trade_id]
            self._given_up[symbol_id].add(trade_id, trade_id)
            self.unrepairable += 1

    def _close(self, symbol_id: int, first_id: int, last_id: int) -> int:
        holes = self._holes[symbol_id]
        closed = [held for held in holes if first_id <= held <= last_id]
        for trade_id in closed:
            del holes[trade_id]
        given_up = self._given_up[symbol_id].count(first_id, last_id)
        if given_up:
            self._given_up[symbol_id].take(first_id, last_id)
            self.unrepairable -= given_up
        return len(closed) + given_up

    @property
    def holes(self) -> int:
        """Ids that are missing now."""
        return sum(map(len, self._holes.values()))

    def lost(self, now_s: float) -> int:
        """Ids that have been missing for longer than the grace time."""
        before_s = now_s - self._grace_s
        return sum(since_s < before_s for holes in self._holes.values() for since_s in holes.values())


class Twins:
    """The same trades as v2 and as v1 brings them. v1 has no ids: price and volume must agree, in order.

    v1 may have summed the volumes of trades in a row up (a client that read slowly); that is no difference.
    """

    def __init__(self) -> None:
        self.compared = self.conflated = self.differs = 0
        self._sides: dict[int, tuple[deque[tuple[float, float]], deque[tuple[float, float]]]] = defaultdict(
            lambda: (deque(), deque())
        )
        self._aligned: set[int] = set()

    def v2(self, symbol_id: int, price: float, quantity: float) -> None:
        """A trade of the v2 feed."""
        self._sides[symbol_id][1].append((price, quantity))

    def v1(self, symbol_id: int, price: float, volume: float) -> None:
        """An entry of the v1 feed."""
        self._sides[symbol_id][0].append((price, volume))

    def match(self) -> None:
        """Compare what both have brought."""
        for symbol_id, (simple, exact) in self._sides.items():
            if symbol_id not in self._aligned and not self._align(symbol_id, simple, exact):
                continue
            while simple and exact and self._one(symbol_id, simple, exact):
                pass
            if max(len(simple), len(exact)) > APART_MAX:
                self._break(symbol_id)

    def _align(
        self, symbol_id: int, simple: deque[tuple[float, float]], exact: deque[tuple[float, float]]
    ) -> bool:
        """Drop what came to one side only, for it began earlier: from there on all that both have agrees."""
        for early, late in ((simple, exact), (exact, simple)):
            held, head = list(early), list(late)
            for place in range(len(held) - ALIGN_ENTRIES + 1):
                count = min(len(held) - place, len(head))
                if count >= ALIGN_ENTRIES and held[place : place + count] == head[:count]:
                    for _ in range(place):
                        early.popleft()
                    self._aligned.add(symbol_id)
                    return True
        if min(len(simple), len(exact)) > APART_MAX:
            self._break(symbol_id)
        return False

    def _one(
        self, symbol_id: int, simple: deque[tuple[float, float]], exact: deque[tuple[float, float]]
    ) -> bool:
        """One v1 entry against the trades that it tells of; False when they have not all come."""
        price, volume = simple[0]
        total = 0.0
        for count, (traded, quantity) in enumerate(exact, 1):
            total += quantity
            if traded == price and isclose(total, volume, rel_tol=1e-9):
                simple.popleft()
                for _ in range(count):
                    exact.popleft()
                self.compared += count
                self.conflated += count > 1
                return True
            if total > volume * (1 + 1e-9):
                self._break(symbol_id)
                return False
        return False

    def _break(self, symbol_id: int) -> None:
        self.differs += 1
        self._aligned.discard(symbol_id)
        for side in self._sides[symbol_id]:
            side.clear()

    @property
    def waiting(self) -> int:
        """Entries that the other side has not brought yet."""
        return sum(len(simple) + len(exact) for simple, exact in self._sides.values())
