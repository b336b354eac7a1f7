"""What a client's request does: subscribe, unsubscribe, ping, and the errors.

A subscribe is answered with `subscribed`, then come the last known prices of the symbols that are new
to this client (volume 0; only symbols that have a price), then live entries: in this order and with
nothing between, because everything happens before the loop reads the next batch. A symbol that was
subscribed already is named in the answer again but gets no second snapshot, since its volumes go on
adding up. Channels that are switched off and unknown names of the same request come last, as one error
each; the rest works.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from picows import WSCloseCode

from tradeback.feed.catchup import CatchUp
from tradeback.feed.client import Client
from tradeback.feed.enigma import EnigmaChannel
from tradeback.feed.fanout import FanOut
from tradeback.feed.interest import EVERYTHING, Interest, union, without
from tradeback.model.clock import Clock
from tradeback.model.config import FeatureConfig
from tradeback.model.limits import CLIENT_ERRORS_MAX
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.wire import control
from tradeback.wire.frames import v1_frames
from tradeback.wire.v1 import ENTRY, Entries

LatestPrice = Callable[[int], float | None]
"""Last known trade price of a symbol id from before the feed's first batch, or None."""


class Requests:
    """Serves the requests of all clients."""

    def __init__(
        self,
        clock: Clock,
        symbols: SymbolTable,
        fanout: FanOut,
        catchup: CatchUp,
        enigma: EnigmaChannel,
        latest_price: LatestPrice,
        features: FeatureConfig,
    ) -> None:
        self._clock = clock
        self._symbols = symbols
        self._fanout = fanout
        self._catchup = catchup
        self._enigma = enigma
        self._latest_price = latest_price
        self._disabled = {} if features.enigma_enabled else {control.ENIGMA: "feature.enigma_enabled"}
        self.served = 0
        self.refused: dict[str, int] = dict.fromkeys(sorted(control.ERROR_CODES), 0)

    def handle(self, client: Client, text: bytes) -> None:
        """Serve one text message."""
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            self.refuse(client, control.error(control.BAD_JSON, f"not JSON: {error}"))
            return
        request = control.parse(message)
        self.served += 1
        if isinstance(request, control.Subscribe):
            self._subscribe(client, request)
        elif isinstance(request, control.Unsubscribe):
            self._unsubscribe(client, request)
        elif isinstance(request, control.Ping):
            _send(client, control.pong(self._clock.wall_ns() // 1_000_000))
        else:
            self.refuse(client, control.error(request.code, request.message))

    def refuse(self, client: Client, answer: control.Message) -> None:
        """Answer with an error; too many of them close the connection."""
        client.errors += 1
        self._send_error(client, answer)
        if client.errors >= CLIENT_ERRORS_MAX:
            client.close(WSCloseCode.POLICY_VIOLATION, "too many bad requests")

    def _send_error(self, client: Client, answer: control.Message) -> None:
        self.refused[answer["code"]] += 1
        _send(client, answer)

    def _subscribe(self, client: Client, request: control.Subscribe) -> None:
        symbols, unknown = self._resolve(request.names, request.everything)
        channels = [channel for channel in request.channels if channel not in self._disabled]
        if channels and (symbols or request.everything):
            _send(client, control.subscribed(symbols))
            asked = EVERYTHING if request.everything else frozenset(symbol.id for symbol in symbols)
            if control.TRADES in channels:
                self._subscribe_trades(client, asked, symbols)
            if control.ENIGMA in channels:
                self._enigma.subscribe(client, asked)
        for channel in request.channels:
            if channel in self._disabled:
                # How the server is set up is no fault of the client's, so it does not count as one.
                self._send_error(client, control.disabled_channel(channel, self._disabled[channel]))
        if unknown:
            self.refuse(client, control.unknown_symbols(unknown))

    def _subscribe_trades(self, client: Client, asked: Interest, symbols: list[Symbol]) -> None:
        held = client.interest
        fresh = [] if held == EVERYTHING else [symbol.id for symbol in symbols if symbol.id not in held]
        entries = self._snapshot(fresh)
        if len(entries):
            client.write(v1_frames(entries))
        self._catchup.learn(asked)
        self._change(client, union(held, asked))

    def _unsubscribe(self, client: Client, request: control.Unsubscribe) -> None:
        symbols, unknown = self._resolve(request.names, request.everything)
        if symbols or request.everything:
            gone = EVERYTHING if request.everything else frozenset(symbol.id for symbol in symbols)
            known = [symbol.id for symbol in self._symbols]
            if control.TRADES in request.channels:
                self._change(client, without(client.interest, gone, known))
            if control.ENIGMA in request.channels:
                self._enigma.change(client, without(client.enigma, gone, known))
            _send(client, control.unsubscribed(symbol.symbol for symbol in symbols))
        if unknown:
            self.refuse(client, control.unknown_symbols(unknown))

    def _change(self, client: Client, interest: Interest) -> None:
        """Move a client to the group of another interest; a lagging one joins it when it has drained."""
        if interest == client.interest:
            return
        self._fanout.leave(client)
        client.interest = interest
        if not client.lagging and not client.closing:
            self._fanout.enter(client)

    def _resolve(self, names: tuple[str, ...], everything: bool) -> tuple[list[Symbol], list[str]]:
        """The symbols with these names, each once, and the names that mean nothing here."""
        found: dict[int, Symbol] = {symbol.id: symbol for symbol in self._symbols} if everything else {}
        unknown = []
        for name in names:
            symbol = self._symbols.find(name)
            if symbol is None:
                unknown.append(name)
            else:
                found[symbol.id] = symbol
        return list(found.values()), unknown

    def _snapshot(self, ids: list[int]) -> Entries:
        """Last known prices with volume 0, of those symbols that have one."""
        last_price = self._fanout.interests.last_price
        rows = []
        for symbol_id in ids:
            price: float | None = float(last_price[symbol_id]) or self._latest_price(symbol_id)
            if price:
                rows.append((symbol_id, price, 0.0))
        return np.array(rows, ENTRY)


def _send(client: Client, answer: dict[str, Any]) -> None:
    client.send_text(orjson.dumps(answer))
