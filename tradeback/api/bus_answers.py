"""Requests on the bus, answered by what answers the REST routes: `api.bars` for bars, memory for the rest.

| subject                 | payload (JSON)                                | answer                           |
|-------------------------|-----------------------------------------------|----------------------------------|
| `tradeback.req.price`   | `{"symbol"}`                                  | as `GET /symbols/{symbol}/price` |
| `tradeback.req.bars`    | `{"symbol","resolution","from","to","limit"}` | as `GET /symbols/{symbol}/bars`  |
| `tradeback.req.symbols` | nothing                                       | as `GET /symbols`                |

One node of all that listen answers (queue group `tradeback`); `tradeback.req.price.<node>` asks a certain
one. An error is `{"error":{"code","message"}}`, as over HTTP.

Edges ask their hub, and only it, for two things more, in binary (`api.bus_packing`): closed bars
(`tradeback.req.history.<node>`) and the state of the derived series (`tradeback.req.state.<node>`).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import orjson

from tradeback.api.bar_text import objects_text
from tradeback.api.bars import Ask as BarsAsk
from tradeback.api.bars import BarReader
from tradeback.api.bus_packing import pack_bars, pack_state
from tradeback.api.context import ServingContext
from tradeback.api.errors import ApiError
from tradeback.api.shapes import price_json, symbol_json
from tradeback.derive.bars import is_whole
from tradeback.derive.lacking import Span
from tradeback.derive.layout import RESOLUTIONS, Bars
from tradeback.model.errors import TradebackError
from tradeback.model.symbols import SYMBOL_IDS_MAX, Symbol
from tradeback.ops.health import ComponentHealth
from tradeback.ops.metrics import Family
from tradeback.stores.ports import Stored
from tradeback.stores.ports_bus import Bus, Message, Subscription

QUEUE = "tradeback"
BARS_MAX = 5_000
"""So many bars are well below the server's limit on a message."""
STATES_MAX = 200
"""Symbols in one answer of the derived state: below 600 KB, whatever they are."""
ALWAYS_S = 1 << 42
"""Later than any bar."""
FILL_S = 2.0
"""How long an answer waits for the exchange's klines."""

Ask = dict[str, Any]

_log = logging.getLogger("tradeback.api.bus")


class BusAnswers:
    """Over one context. `start`, `stop`; connecting is the bus's business."""

    def __init__(
        self, context: ServingContext, bus: Bus, node: str, stored: Callable[[], Stored] | None = None
    ) -> None:
        """`stored` reads the series store, in a thread; without it edges must have the whole tape."""
        self._context, self._bus, self._node, self._stored = context, bus, node, stored
        self._reader = BarReader(context)
        self._subscriptions: list[Subscription] = []
        self.asked: dict[str, int] = {}
        self.refused = 0
        self._since_ns = time.time_ns()

    async def start(self) -> None:
        """Connect in the background, and answer from then on."""
        await self._bus.start()
        open_to_all: dict[str, Callable[[Ask], Awaitable[bytes]]] = {
            "price": self._price,
            "bars": self._bars,
            "symbols": self._symbols,
        }
        for verb, make in open_to_all.items():
            self.asked[verb] = 0
            call = partial(self._reply, verb, make)
            self._subscriptions.append(await self._bus.answer(f"tradeback.req.{verb}", call, queue=QUEUE))
            self._subscriptions.append(await self._bus.answer(f"tradeback.req.{verb}.{self._node}", call))
        packed: dict[str, Callable[[Ask], Awaitable[bytes]]] = {
            "history": self._history,
            "state": self._state,
        }
        for verb, make in packed.items():
            self.asked[verb] = 0
            call = partial(self._reply, verb, make)
            self._subscriptions.append(await self._bus.answer(f"tradeback.req.{verb}.{self._node}", call))

    async def stop(self) -> None:
        """No more answers; the connection is closed."""
        for subscription in self._subscriptions:
            await subscription.end()
        await self._bus.close()

    async def _reply(self, verb: str, make: Callable[[Ask], Awaitable[bytes]], message: Message) -> bytes:
        self.asked[verb] += 1
        try:
            return await make(_ask_of(message.payload))
        except ApiError as error:
            self.refused += 1
            return _error(error.code, str(error))
        except TradebackError as error:
            self.refused += 1
            _log.warning("a request for %s cannot be answered: %s", verb, error)
            return _error("not_ready", "this cannot be answered now; try again in a moment")

    async def _symbols(self, ask: Ask) -> bytes:
        return orjson.dumps([symbol_json(symbol) for symbol in self._context.symbols])

    async def _price(self, ask: Ask) -> bytes:
        symbol = self._symbol(ask)
        if self._context.derived is None:
            raise _starting()
        state = self._context.derived.latest(symbol.id)
        found = price_json(symbol, state) if state is not None else None
        if found is None:
            raise ApiError(503, "not_ready", f"no price of {symbol.symbol} is known yet: no trade has come")
        return orjson.dumps(found)

    async def _bars(self, ask: Ask) -> bytes:
        """The body of the REST route to the byte: with the running bar, older ones fetched if need be."""
        window = await self._reader.window(self._wanted_bars(ask), wait_s=FILL_S)
        (texts,) = await self._reader.text(window, objects_text)
        return b'{"bars":[%s],"loading":%s}' % (b",".join(texts), b"false" if window.settled else b"true")

    async def _history(self, ask: Ask) -> bytes:
        """Bars that are complete; older ones than there are, are fetched from the exchange first."""
        rows, complete = await self._read_bars(ask)
        klines, limit = self._context.klines, _whole(ask, "limit", BARS_MAX, BARS_MAX)
        if klines is not None and len(rows) < limit:
            symbol, resolution = self._symbol(ask), RESOLUTIONS.index(ask.get("resolution", "1m"))
            oldest_s = int(rows["slot_us"][0]) // 1_000_000 if len(rows) else _whole(ask, "to", 0, ALWAYS_S)
            span = Span(_whole(ask, "from", 0, ALWAYS_S), oldest_s)
            if span.from_s < span.to_s:
                await klines.fill(symbol, resolution, [span], limit - len(rows), FILL_S)
                rows, complete = await self._read_bars(ask)
        return pack_bars(rows[complete & (rows["trade_count"] > 0)])

    async def _state(self, ask: Ask) -> bytes:
        """The derived state of some symbols, as the series store has it."""
        if self._stored is None or self._context.series is None:
            raise _starting()
        first, count = _whole(ask, "first", 0, SYMBOL_IDS_MAX), _whole(ask, "count", STATES_MAX, STATES_MAX)
        return pack_state(await asyncio.to_thread(self._stored), first, count)

    def _wanted_bars(self, ask: Ask) -> BarsAsk:
        """Which bars; raises ApiError for what cannot be asked."""
        symbol = self._symbol(ask)
        if not self._context.config.feature.aggregation_enabled:
            raise ApiError(
                404, "disabled", "bars are switched off here: FEATURE_AGGREGATION_ENABLED is false"
            )
        name = ask.get("resolution", "1m")
        if name not in RESOLUTIONS:
            raise _bad(f"resolution is {str(name)[:40]!r}; it must be one of {', '.join(RESOLUTIONS)}")
        from_s, to_s = _whole(ask, "from", 0, ALWAYS_S), _whole(ask, "to", ALWAYS_S, ALWAYS_S)
        limit, deep = _whole(ask, "limit", BARS_MAX, BARS_MAX), ask.get("from") is not None
        return BarsAsk(symbol, RESOLUTIONS.index(name), from_s, to_s, limit, deep=deep)

    async def _read_bars(self, ask: Ask) -> tuple[Bars, Any]:
        """Bars as the series has them, and which are complete."""
        wanted, context = self._wanted_bars(ask), self._context
        if context.series is None:
            raise _starting()
        ledger = context.gaps.ledger if context.gaps is not None else None
        fills = ledger.fills if ledger is not None else 0
        number = wanted.symbol.id
        rows, complete = await context.series.bars(
            number, wanted.resolution, wanted.from_s, wanted.to_s, wanted.limit, newest=True
        )
        if ledger is not None and ledger.fills == fills:
            complete = complete | is_whole(rows) & ledger.proved(number, rows["first_id"], rows["last_id"])
        return rows, complete

    def _symbol(self, ask: Ask) -> Symbol:
        name = ask.get("symbol")
        if not isinstance(name, str) or not name:
            raise _bad('name the symbol: {"symbol":"BTCUSDT"}')
        symbol = self._context.symbols.find(name)
        if symbol is None:
            raise ApiError(
                404, "unknown_symbol", f"no symbol {name[:40]!r}; tradeback.req.symbols lists them"
            )
        return symbol

    def health(self) -> ComponentHealth:
        """That of the connection."""
        return self._bus.health()

    def collect(self) -> Iterator[Family]:
        """Requests by verb."""
        family = Family("tradeback_bus_requests", "counter", "Requests on the bus that were answered.")
        for verb, count in self.asked.items():
            family.add(count, verb=verb)
        yield family
        text = "Requests on the bus that were answered by an error."
        yield Family("tradeback_bus_requests_refused", "counter", text).add(self.refused)


def _ask_of(payload: bytes) -> Ask:
    try:
        ask = orjson.loads(payload) if payload.strip() else {}
    except orjson.JSONDecodeError:
        ask = None
    if not isinstance(ask, dict):
        raise _bad("the payload is no JSON object")
    return ask


def _whole(ask: Ask, name: str, default: int, largest: int) -> int:
    """A whole number from 0 to `largest`."""
    value = ask.get(name, default)
    if value is None:
        return default
    if type(value) is not int or not 0 <= value <= largest:
        raise _bad(f"{name} is {str(value)[:40]!r}; it must be a whole number from 0 to {largest}")
    return int(value)


def _bad(message: str) -> ApiError:
    return ApiError(400, "bad_request", message)


def _starting() -> ApiError:
    return ApiError(503, "not_ready", "the engine is still starting; try again in a moment")


def _error(code: str, message: str) -> bytes:
    return orjson.dumps({"error": {"code": code, "message": message}})
