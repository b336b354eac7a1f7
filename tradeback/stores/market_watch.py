"""Market watches, without HTTP: which symbols a session or a user follows, in which order.

A watch belongs to a `watch_id` (`SessionRecord.watch_id`): the user's own, the same on all devices, or the
anonymous session's, gone with it.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence

from tradeback.model.clock import Clock
from tradeback.model.errors import StoreError, TradebackError
from tradeback.ops.log import Log, RepeatLimiter
from tradeback.stores.ports import Accounts

SYMBOLS_MAX = 200


class WatchFull(TradebackError):
    """The watch holds as many symbols as it may."""


class MarketWatch:
    """The service behind `/marketwatch`. Loop thread only. Calls may raise StoreError; `union` does not.

    Symbols are given as the symbol table has them; whether one exists is the caller's question.
    """

    def __init__(self, accounts: Accounts, clock: Clock, log: Log, symbols_max: int = SYMBOLS_MAX) -> None:
        self.on_change: list[Callable[[str, str, bool], None]] = []
        """Called with watch id, symbol, and whether it was added, after a change made here."""
        self.elsewhere: Callable[[], Awaitable[frozenset[str]]] | None = None
        """Asked for the symbols that other nodes' watches hold."""
        self.symbols_max = symbols_max
        self._accounts, self._clock, self._log = accounts, clock, log
        self._union: frozenset[str] = frozenset()
        self._elsewhere: frozenset[str] = frozenset()
        self._limiter = RepeatLimiter(60.0)

    async def symbols(self, watch_id: str) -> list[str]:
        """In display order."""
        return await self._accounts.watched(watch_id)

    async def lists(self, watch_ids: Sequence[str]) -> dict[str, list[str]]:
        """`symbols` of many."""
        found = await self._accounts.watched_by(watch_ids)
        return {watch_id: found.get(watch_id, []) for watch_id in watch_ids}

    async def add(self, watch_id: str, symbol: str) -> bool:
        """Add to the end; False when it is there already. Raises WatchFull."""
        added = await self._accounts.watch(watch_id, symbol, self.symbols_max, self._clock.wall_ns())
        if added is None:
            raise self._full()
        if added:
            self._tell(watch_id, symbol, True)
        return added

    async def remove(self, watch_id: str, symbol: str) -> bool:
        """Take out; False when it was not there."""
        removed = await self._accounts.unwatch(watch_id, symbol)
        if removed:
            self._tell(watch_id, symbol, False)
        return removed

    async def arrange(self, watch_id: str, symbols: Sequence[str], hidden: Collection[str] = ()) -> None:
        """Make the watch these symbols in this order, each once. What is `hidden` from the caller stays, at
        the end. Raises WatchFull before anything is changed."""
        held = await self.symbols(watch_id)
        kept = [symbol for symbol in held if symbol in hidden and symbol not in symbols]
        if len(symbols) + len(kept) > self.symbols_max:
            raise self._full()
        for symbol in held:
            if symbol not in symbols and symbol not in kept:
                await self.remove(watch_id, symbol)
        for symbol in symbols:
            if symbol not in held:
                await self.add(watch_id, symbol)
        await self._accounts.arrange_watch(watch_id, [*symbols, *kept])

    def _full(self) -> WatchFull:
        return WatchFull(f"a market watch holds {self.symbols_max} symbols at the most: remove one first")

    async def adopt(self, from_id: str, into_id: str) -> list[str]:
        """After a log-in: put the symbols of the anonymous watch behind the user's own, as far as there is
        room. The symbols that came in. The anonymous watch goes with its session."""
        came = []
        for symbol in await self.symbols(from_id):
            try:
                if await self.add(into_id, symbol):
                    came.append(symbol)
            except WatchFull:
                break
        return came

    async def union(self) -> frozenset[str]:
        """Symbols in any watch whose owner has a live session, here or on another node; the last known while
        the registry or the latest store is away."""
        try:
            self._union = frozenset(await self._accounts.watched_by_all(self._clock.wall_ns()))
        except StoreError as error:
            self._warn("market watches cannot be read; the last known ones hold", error)
        try:
            if self.elsewhere is not None:
                self._elsewhere = await self.elsewhere()
        except StoreError as error:
            self._warn("other nodes' market watches cannot be read; the last known ones hold", error)
        return self._union | self._elsewhere

    def _warn(self, event: str, error: StoreError) -> None:
        if self._limiter.allow(event, self._clock.steady_ns()) is not None:
            self._log.warning(event, reason=str(error))

    def _tell(self, watch_id: str, symbol: str, added: bool) -> None:
        for notify in self.on_change:
            notify(watch_id, symbol, added)
