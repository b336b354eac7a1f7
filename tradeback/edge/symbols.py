"""The hub's symbols on an edge: the same wire ids, kept in the edge's registry for when the hub is away."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from tradeback.model.clock import Clock
from tradeback.model.errors import StartupError, StoreError
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.ops.health import ComponentHealth
from tradeback.ops.log import Log
from tradeback.stores.ports_bus import Bus
from tradeback.stores.registry_sqlite import RegistrySqlite

ASK_S = 3.0
AGAIN_S = 5.0
"""How often the hub is asked: for what has changed, and whether it is there."""
SOON_S = 0.5
"""How soon it is asked again when it did not answer."""
_FIELDS = (
    "id", "symbol", "base_currency", "quote_currency", "is_active", "tick_size", "step_size", "min_notional"
)  # fmt: skip


class HubSymbols:
    """Asks the hub, and tells everyone. Loop thread.

    `on_symbols`: called with those that are new or described otherwise, when table and registry have them.
    """

    def __init__(
        self, bus: Bus, node: str, table: SymbolTable, registry: RegistrySqlite, clock: Clock, log: Log
    ) -> None:
        self.on_symbols: list[Callable[[Sequence[Symbol]], None]] = []
        self.last_error: str | None = None
        self._bus, self._node, self._table, self._registry = bus, node, table, registry
        self._clock, self._log = clock, log
        self._asked = False
        self._soon = asyncio.Event()
        self._since_ns = clock.wall_ns()
        self._lock = asyncio.Lock()

    async def watch(self) -> None:
        """Ask now and then, and when something has changed, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S if self.last_error is None else SOON_S):
                    await self._soon.wait()
            self._soon.clear()
            await self.ask()
            await asyncio.sleep(SOON_S)  # however often something changes

    def changed(self) -> None:
        """The hub's symbols are not what they were: ask it soon."""
        self._soon.set()

    async def know(self, ids: set[int]) -> None:
        """Until these symbols are in the table: the hub is asked until it answers."""
        while not all(self._table.by_id(number) for number in ids):
            await self.ask()
            if all(self._table.by_id(number) for number in ids):
                return
            if self.last_error is None:
                self.last_error = f"the hub {self._node} does not tell what symbols {sorted(ids)} are"
            await asyncio.sleep(SOON_S)

    async def first(self) -> None:
        """Until there are any symbols: those of an earlier run, or the hub's."""
        while not len(self._table):
            await self.ask()
            if not len(self._table):
                await asyncio.sleep(SOON_S)

    async def ask(self) -> None:
        """Ask the hub once; `last_error` says why it did not answer. StartupError when its ids differ."""
        async with self._lock:
            try:
                payload = await self._bus.request(f"tradeback.req.symbols.{self._node}", b"", ASK_S)
                symbols = symbols_of(payload)
            except (StoreError, TimeoutError, ValueError) as error:
                words = f"the hub {self._node} does not answer: {error}"
                if self.last_error is None:
                    self._since_ns = self._clock.wall_ns()
                    self._log.warning("the hub does not answer", node=self._node, reason=str(error))
                self.last_error = words
                return
            changed = [symbol for symbol in symbols if self._table.by_id(symbol.id) != symbol]
            if changed:
                await self._learn(changed)
            if self.last_error is not None or not self._asked:
                self._since_ns = self._clock.wall_ns()
                self._log.info("the hub answers", node=self._node, symbols=len(symbols))
            self.last_error, self._asked = None, True

    async def _learn(self, symbols: list[Symbol]) -> None:
        try:
            await asyncio.to_thread(self._registry.copy, symbols)
            for symbol in symbols:
                self._table.put(symbol)
        except (StoreError, ValueError) as error:
            raise StartupError(
                f"the hub {self._node} numbers its symbols otherwise than this edge has them ({error}): "
                "it is another hub, so take another DATA_DIR, or correct NATS_NODE"
            ) from error
        for tell in self.on_symbols:
            tell(symbols)

    def health(self) -> ComponentHealth:
        """Degraded while the hub does not answer: what it has published is served all the same."""
        state = "ok" if self.last_error is None else "degraded"
        if not self._asked and self.last_error is None:
            state = "starting"
        return ComponentHealth("hub", state, self._since_ns, self.last_error)  # type: ignore[arg-type]


def symbols_of(payload: bytes) -> list[Symbol]:
    """The answer to `tradeback.req.symbols`. ValueError when it is none."""
    rows: Any = orjson.loads(payload)
    if isinstance(rows, dict) and "error" in rows:
        raise ValueError(str(rows["error"].get("message", rows["error"])))
    if not isinstance(rows, list):
        raise ValueError("the answer is no list of symbols")
    try:
        return [Symbol(**{name: row[name] for name in _FIELDS}) for row in rows]
    except (KeyError, TypeError) as error:
        raise ValueError(f"a symbol of the answer lacks {error}") from None
