"""Market watches as subscriptions: what a client gets because of its session's watch.

A watch is subscribed to in the channel `trades`. The client itself always wins: what it subscribes to stays
when the symbol leaves the watch, what it unsubscribes from stays away while the symbol is in it.

Version 2: a resume belongs to one subscription, and must bring everything since the client's position. So one
that comes before the client has subscribed parks the watch; the subscribe that follows takes it along. Where
none follows within PARK_S, the watch is what it was meant for. What came before the answer to a resume comes
again behind it: clients drop it.
"""

from collections.abc import Iterable, Sequence

import orjson

from tradeback.feed.client import Client
from tradeback.feed.interest import EVERYTHING, NOTHING, Interest
from tradeback.feed.lane_v2 import LaneV2
from tradeback.feed.subjects import subjects_of
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.wire import control

PARK_S = 0.25
"""Clients send resume and subscribe at once."""
CHANNELS = (control.TRADES,)


class Watches:
    """The rules. `follow` is called by `feed.attendance`, the rest by `feed.requests`."""

    def __init__(self, symbols: SymbolTable, v2: LaneV2) -> None:
        self._symbols, self._v2 = symbols, v2

    def follow(self, client: Client, names: Sequence[str]) -> bool:
        """Bring the client from the watch that it knows to `names`. False: its socket is full, ask again.

        Symbols that are not known here, or not allowed to the session, are left out until they are.
        """
        if client.closing:
            return True
        if client.lagging or client.replay is not None or client.parked:
            return False
        allowed = client.admission.symbols
        found = [self._symbols.find(name) for name in names]
        symbols = [each for each in found if each is not None and (allowed is None or each.symbol in allowed)]
        held, client.watched = client.watched, tuple(symbol.symbol for symbol in symbols)
        self._drop(client, [name for name in held if name not in client.watched])
        self._add(client, [symbol for symbol in symbols if symbol.symbol not in held])
        return True

    def asked(self, client: Client, channels: Iterable[str], asked: Interest) -> None:
        """The client subscribes itself: these are no longer the watch's."""
        client.asked = True
        if control.TRADES in channels:
            client.auto = NOTHING if asked == EVERYTHING else client.auto - asked

    def refused(self, client: Client, channels: Iterable[str], gone: Interest) -> None:
        """The client unsubscribes itself, also from what the watch brought."""
        if control.TRADES in channels:
            client.auto = NOTHING if gone == EVERYTHING else client.auto - gone
            client.parked = NOTHING if gone == EVERYTHING else client.parked - gone

    def park(self, client: Client) -> None:
        """A resume has come."""
        if client.asked or not client.auto or client.lagging or client.replay is not None:
            return
        parked = client.auto
        client.lane.unsubscribe(client, CHANNELS, parked, [symbol.id for symbol in self._symbols])
        client.live_from = None
        client.parked = parked
        client.feed.later(PARK_S, lambda: self._unpark(client))

    def _unpark(self, client: Client) -> None:
        if client.parked and not client.closing:
            self._v2.subscribe(client, CHANNELS, NOTHING, [])

    def _add(self, client: Client, symbols: list[Symbol]) -> None:
        if not symbols:
            return
        position = client.lane.position(client)
        for symbol in symbols:
            client.send_text(orjson.dumps(control.auto_subscribe(symbol, position)))
        ids = frozenset(symbol.id for symbol in symbols)
        client.auto |= frozenset(symbol.id for symbol in symbols if not _gets(client, symbol.id))
        client.lane.subscribe(client, CHANNELS, ids, symbols)

    def _drop(self, client: Client, names: list[str]) -> None:
        symbols = [symbol for symbol in map(self._symbols.find, names) if symbol is not None]
        gone = [symbol for symbol in symbols if symbol.id in client.auto]
        if not gone:
            return
        ids = frozenset(symbol.id for symbol in gone)
        client.auto -= ids
        client.lane.unsubscribe(client, CHANNELS, ids, [symbol.id for symbol in self._symbols])
        client.send_text(orjson.dumps(control.unsubscribed(symbol.symbol for symbol in gone)))


def _gets(client: Client, symbol_id: int) -> bool:
    """Whether the client gets the trades of this symbol."""
    either = frozenset({0, symbol_id})
    wanted = either if client.lane.version == 1 else subjects_of(CHANNELS, either)
    return bool(client.interest & wanted)
