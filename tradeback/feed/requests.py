"""What a client's request does: subscribe, unsubscribe, resume, ping, and the errors.

A subscribe is answered with `subscribed`, then comes what is known of the symbols that are new to this
client (see the lanes), then live entries: in this order and with
nothing between, because everything happens before the loop reads the next batch. A symbol that was
subscribed already is named in the answer again but gets no second snapshot, since its volumes go on
adding up. Channels that are switched off and unknown names of the same request come last, as one error
each; the rest works. While the engine is still starting a name may be unknown because the exchange has
not been asked yet: such a request waits, and what the client sends behind it, too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import orjson
from picows import WSCloseCode

from tradeback.feed.client import Client
from tradeback.feed.enigma import EnigmaChannel
from tradeback.feed.interest import EVERYTHING, without
from tradeback.feed.lane_v2 import LaneV2
from tradeback.feed.watches import Watches
from tradeback.model.clock import Clock
from tradeback.model.config import FeatureConfig
from tradeback.model.limits import CLIENT_ERRORS_MAX, CLIENT_REQUESTS_MAX, SYMBOLS_PER_COST
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.wire import control


class Requests:
    """Serves the requests of all clients."""

    def __init__(
        self,
        clock: Clock,
        symbols: SymbolTable,
        v2: LaneV2,
        enigma: EnigmaChannel,
        features: FeatureConfig,
        complete: Callable[[], bool] = lambda: True,
    ) -> None:
        """`complete`: whether the symbols are known; until then requests for unknown ones wait."""
        self._complete = complete
        self._clock = clock
        self._symbols = symbols
        self._v2 = v2
        self._enigma = enigma
        self._watches = Watches(symbols, v2)
        self._disabled = {} if features.enigma_enabled else {control.ENIGMA: "feature.enigma_enabled"}
        self.served = 0
        self.refused: dict[str, int] = dict.fromkeys(sorted(control.ERROR_CODES), 0)

    def handle(self, client: Client, text: bytes) -> None:
        """Serve one text message."""
        if not client.charge(1):
            words = f"more than {CLIENT_REQUESTS_MAX} requests in a second; large ones count for more"
            self.refuse(client, control.error(control.TOO_MANY_REQUESTS, words))
            return
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            self.refuse(client, control.error(control.BAD_JSON, f"not JSON: {error}"))
            return
        request = control.parse(message, client.lane.version)
        if not self._complete() and self._names_unknown(request):
            client.defer(text)
            return
        self.served += 1
        if isinstance(request, control.Subscribe):
            self._subscribe(client, request)
        elif isinstance(request, control.Unsubscribe):
            self._unsubscribe(client, request)
        elif isinstance(request, control.Resume):
            self._watches.park(client)
            if not self._v2.resume(client, request.epoch, request.sequence):
                self._v2.refresh(client)
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

    def follow(self, client: Client, names: Sequence[str]) -> bool:
        """Deliver the market watch `names`; False when that has to wait. See `feed.watches`."""
        return self._watches.follow(client, names)

    def _subscribe(self, client: Client, request: control.Subscribe) -> None:
        symbols, unknown = self._resolve(request.names, request.everything)
        client.charge(len(symbols) // SYMBOLS_PER_COST)
        everything = request.everything and client.admission.symbols is None
        symbols, forbidden = _allowed(client, symbols, request.names)
        channels = [channel for channel in request.channels if channel not in self._disabled]
        if channels and (symbols or request.everything):
            _send(client, control.subscribed(symbols, client.lane.position(client)))
            asked = EVERYTHING if everything else frozenset(symbol.id for symbol in symbols)
            self._watches.asked(client, channels, asked)
            client.lane.subscribe(client, tuple(channels), asked, symbols)
            if control.ENIGMA in channels:
                self._enigma.subscribe(client, asked)
        for channel in request.channels:
            if channel in self._disabled:
                # How the server is set up is no fault of the client's, so it does not count as one.
                self._send_error(client, control.disabled_channel(channel, self._disabled[channel]))
        if unknown:
            self.refuse(client, control.unknown_symbols(unknown))
        if forbidden:
            self.refuse(client, control.forbidden_symbols(forbidden))

    def _unsubscribe(self, client: Client, request: control.Unsubscribe) -> None:
        symbols, unknown = self._resolve(request.names, request.everything)
        client.charge(len(symbols) // SYMBOLS_PER_COST)
        symbols, forbidden = _allowed(client, symbols, request.names)
        if symbols or request.everything:
            gone = EVERYTHING if request.everything else frozenset(symbol.id for symbol in symbols)
            known = [symbol.id for symbol in self._symbols]
            self._watches.refused(client, request.channels, gone)
            client.lane.unsubscribe(client, request.channels, gone, known)
            if control.ENIGMA in request.channels:
                self._enigma.change(client, without(client.enigma, gone, known))
            _send(client, control.unsubscribed(symbol.symbol for symbol in symbols))
        if unknown:
            self.refuse(client, control.unknown_symbols(unknown))
        if forbidden:
            self.refuse(client, control.forbidden_symbols(forbidden))

    def _names_unknown(self, request: object) -> bool:
        named = request.names if isinstance(request, control.Subscribe | control.Unsubscribe) else ()
        return any(self._symbols.find(name) is None for name in named)

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


def _allowed(client: Client, symbols: list[Symbol], names: Sequence[str]) -> tuple[list[Symbol], list[str]]:
    """What the client's session may see of these symbols, and which it asked for by name and may not."""
    allowed = client.admission.symbols
    if allowed is None:
        return symbols, []
    asked = {name.upper() for name in names}
    kept = [symbol for symbol in symbols if symbol.symbol in allowed]
    return kept, sorted(asked & {symbol.symbol for symbol in symbols} - allowed)


def _send(client: Client, answer: dict[str, Any]) -> None:
    client.send_text(orjson.dumps(answer))
