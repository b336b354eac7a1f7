"""What is subscribed at the exchange: the configured symbols and those in anybody's market watch.

The union of all watches is read every `exchange.watch_refresh`, and at once when one is changed here
(`changed`). A symbol that comes gets its description and its wire id, is made known to everyone who will see
its records, and only then are its streams asked for, on connections that go on delivering the others. One
that nobody watches any more goes after `exchange.watch_grace`, or when its place is needed; its id stays.

While nobody asks for a symbol its ids go by unseen, on purpose. So when it comes again a record of the kind
UNWATCHED goes before it on the tape, behind which its claim to completeness begins anew. Whether it had gone
says `is_active` in the registry: it turns false before the streams end, so a crash in between makes the
time away a gap at the worst, and never hides one.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tradeback.exchange.catalogue import Catalogue
from tradeback.exchange.intake import Intake
from tradeback.exchange.pool import Pool
from tradeback.exchange.stall_watch import StallWatch
from tradeback.model.clock import Clock
from tradeback.model.config import ExchangeConfig
from tradeback.model.errors import ExchangeError, StoreError, TapeError
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.ops.health import ComponentHealth, State
from tradeback.ops.log import Log, RepeatLimiter
from tradeback.ops.metrics import Family, unlabelled
from tradeback.ops.tasks import end
from tradeback.stores.ports import SymbolIds, SymbolRecord
from tradeback.stores.registry_rows import record_of

if TYPE_CHECKING:
    from tradeback.derive.state import Derived

ID_WAIT_S = 5.0
"""How long the registry may take to give ids; the same symbols are asked for again in the next round."""
CARRY_WAIT_S = 10.0
"""How long a round waits until new streams are acknowledged; lines that are down bring them later."""
AT_ONCE = 16
"""Symbols made known before the loop may look at the lines again: about half a millisecond."""
LEFT_OVER_AT_ONCE = 200
"""Symbols of an earlier run that are written down as not followed in one round."""
SHOWN_MAX = 10

Source = Callable[[], Awaitable[Iterable[str]]]
"""Reads the union of market watches: the registry's, those of other nodes. May raise StoreError."""
Learn = Callable[[Sequence[Symbol]], Awaitable[None]]
"""Fetches what happened before the tape; it may take long."""
OnSymbols = Callable[[Sequence[Symbol]], None]


class Wanted:
    """One per engine: `start` when the lines are started, `stop` before them. Loop thread only.

    `configured`: what is subscribed from the start and for good. `also`: what is to be, and could not have
    its wire id then. `parts`: whoever has to know a symbol that comes or goes.
    """

    name = "symbols"

    def __init__(
        self,
        configured: Iterable[str],
        also: Iterable[str],
        sources: Sequence[Source],
        catalogue: Catalogue,
        ids: SymbolIds,
        symbols: SymbolTable,
        parts: tuple[Pool, Intake, "Derived", StallWatch],
        learn: Learn,
        clock: Clock,
        config: ExchangeConfig,
        log: Log,
    ) -> None:
        self._configured, self._also = frozenset(configured), frozenset(also)
        self._catalogue, self._ids, self._symbols = catalogue, ids, symbols
        self._sources: dict[Source, frozenset[str] | None] = dict.fromkeys(sources)
        """What each has said last; None: nothing yet."""
        self._pool, self._intake, self._derived, self._stalls = parts
        self._learn, self._clock, self._log = learn, clock, log
        self._refresh_s, self._grace_ns = config.watch_refresh_s, int(config.watch_grace_s * 1e9)
        self.on_symbols: list[OnSymbols] = []
        """Called with symbols that are new or described anew, before any record of theirs."""
        self._watched: frozenset[str] = frozenset()
        """What the last reading said, without the configured ones."""
        self._carried: dict[str, None] = {}
        """Symbols that this component has subscribed, the configured ones not among them."""
        self._unwatched: dict[str, int] = {}
        """Of those, which nobody watches, and since when (steady ns)."""
        self.refused: tuple[str, ...] = ()
        """Watched symbols for which there is no room on the connections."""
        self.unknown: tuple[str, ...] = ()
        """Watched symbols that the exchange does not have."""
        self.waiting: tuple[str, ...] = ()
        """Watched symbols whose description or id has not come yet."""
        self.came = self.went = self.readings = self.failures = 0
        self._returning: set[int] = set()
        """Symbols that come again, whose record UNWATCHED is on the tape already."""
        self._is_tidy = False
        """What an earlier run has left is written down as not followed."""
        self._error: str | None = None
        self._state: State = "starting"
        self._since_ns = clock.wall_ns()
        self._limiter = RepeatLimiter(60.0)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._learning: set[asyncio.Task[None]] = set()
        self._watch: Callable[[asyncio.Task[None]], None] = lambda task: None

    # Life.

    def start(self, watch: Callable[[asyncio.Task[None]], None]) -> None:
        """Begin; a task that ends by itself is shown to `watch`."""
        self._watch = watch
        self._task = asyncio.create_task(self.run(), name=self.name)
        self._task.add_done_callback(watch)

    async def stop(self) -> None:
        """End it, and the histories under way. What is subscribed stays so."""
        tasks = [*self._learning, *([self._task] if self._task is not None else [])]
        await end(tasks)

    def changed(self, *_: object) -> None:
        """A market watch has been changed here: read them at once."""
        self._wake.set()

    def lists(self, name: str) -> bool:
        """Whether a symbol of this name can be watched: it is known here, or the exchange lists it."""
        return self._symbols.find(name) is not None or self._catalogue.lists(name)

    async def run(self) -> None:
        """Keep up with the watches, for ever."""
        while True:
            self._wake.clear()
            wait_s = 0.0 if await self.step() else self._wait_s()
            # Not wait_for: in Python 3.11 that swallows a cancellation which comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    def _wait_s(self) -> float:
        """Until the next reading, or the end of a symbol's grace."""
        now_ns = self._clock.steady_ns()
        ends = (since_ns + self._grace_ns - now_ns for since_ns in self._unwatched.values())
        return min([self._refresh_s, *(end_ns / 1e9 for end_ns in ends if end_ns > 0)])

    async def step(self) -> bool:
        """One round; True when there is more to do at once. What fails is tried again in the next."""
        error = await self._read()
        left = False
        try:
            left = await self._follow()
            if not self._is_tidy and self._knows_all:
                self._is_tidy = await self._retire_left_over()
        except (ExchangeError, StoreError, TapeError) as failure:
            error = error or str(failure)
        self.failures += error is not None
        self._note(error)
        return left and error is None

    async def _read(self) -> str | None:
        """Ask every source; one that is away has said what it said last. Returns what is wrong."""
        wrong = None
        for source in self._sources:
            try:
                self._sources[source] = frozenset(await source())
            except StoreError as error:
                wrong = f"market watches cannot be read: {error}"
        self.readings += wrong is None
        said = (names for names in self._sources.values() if names is not None)
        self._watched = self._also.union(*said) - self._configured
        return wrong

    @property
    def _knows_all(self) -> bool:
        """Every source has been read: what none of them names is watched by nobody."""
        return None not in self._sources.values()

    async def _follow(self) -> bool:
        """Drop what nobody wants, take up what is new; True when some of that is left for the next round."""
        now_ns = self._clock.steady_ns()
        idle = [name for name in self._carried if name not in self._watched and self._knows_all]
        self._unwatched = {name: self._unwatched.get(name, now_ns) for name in idle}
        missing = sorted(self._watched - self._carried.keys())
        due = [name for name, since_ns in self._unwatched.items() if now_ns - since_ns >= self._grace_ns]
        short = len(missing) - len(set(self.unknown) & set(missing)) - self._pool.placement.room
        if short > len(due):
            # Whoever is watched comes before what is kept for the case that somebody comes back.
            due = sorted(self._unwatched, key=lambda name: self._unwatched[name])[:short]
        if due:
            await self._drop(due)
        return await self._take_up(missing)

    # Symbols that come.

    async def _take_up(self, names: Sequence[str]) -> bool:
        """Subscribe to these as far as can be; True when there are more to ask the exchange for."""
        found = await self._catalogue.find(names)
        self._report_unknown(found.unknown)
        room = self._pool.placement.room
        records, refused = found.records[:room], found.records[room:]
        self._report_refused([record.symbol for record in refused])
        came = await self._assign(records) if records else []
        waiting = {*found.left, *(record.symbol for record in records)}
        self.waiting = tuple(sorted(waiting - {symbol.symbol for symbol in came}))
        if came:
            await self._subscribe(came)
        if found.error is not None:
            raise found.error
        return bool(found.left)

    async def _assign(self, records: Sequence[SymbolRecord]) -> list[Symbol]:
        """The symbols with their ids, as far as the registry gives them now."""
        held = (self._symbols.find(record.symbol) for record in records)
        away = {symbol.id for symbol in held if symbol is not None and not symbol.is_active}
        returning = sorted(away - self._returning)
        if returning:
            await self._intake.flowing()
            self._intake.begin_anew(returning, self._clock.wall_ns())
            await self._intake.flowing()
            self._returning |= away
        return await self._write(records)

    async def _write(self, records: Sequence[SymbolRecord]) -> list[Symbol]:
        """Descriptions into the registry; StoreError when it refuses or does not answer."""
        try:
            async with asyncio.timeout(ID_WAIT_S):
                return await self._ids.assign_ids(records)
        except TimeoutError:
            raise StoreError("the registry does not answer") from None
        except Exception as error:  # the boundary to a store: whatever it raises, the streams go on
            raise StoreError(f"the registry takes no symbols: {error}") from error

    async def _subscribe(self, symbols: Sequence[Symbol]) -> None:
        """Everyone who will see their records knows them first."""
        for number, symbol in enumerate(symbols, 1):
            self._symbols.put(symbol)
            self._derived.add_symbol(symbol)
            self._intake.add_symbol(symbol)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        self._tell(symbols)
        names = [symbol.symbol for symbol in symbols]
        self._returning -= {symbol.id for symbol in symbols}
        self._carried.update(dict.fromkeys(self._pool.add(names)))
        self.came += len(names)
        self._log.info("symbols subscribed", symbols=len(names), names=names[:SHOWN_MAX])
        try:
            async with asyncio.timeout(CARRY_WAIT_S):
                await self._pool.carried(names)
        except TimeoutError:
            self._log.warning("new streams are not acknowledged yet", symbols=len(names))
        self._stalls.follow(self._pool.lines)
        task = asyncio.create_task(self._learn_history(list(symbols)))
        self._learning.add(task)
        task.add_done_callback(self._learning.discard)
        task.add_done_callback(self._watch)

    async def _learn_history(self, symbols: Sequence[Symbol]) -> None:
        """Once their streams deliver: what is not carried yet would be missing behind the boundary."""
        await self._pool.carried([symbol.symbol for symbol in symbols])
        left = [symbol for symbol in symbols if symbol.symbol in self._pool.placement]
        if left:
            await self._learn(left)

    # Symbols that go.

    async def _drop(self, names: Collection[str]) -> None:
        """Unsubscribe from these, once the registry holds that they went."""
        gone = await self._retire(names)
        if not gone:
            return
        for name in gone:
            self._carried.pop(name, None)
            self._unwatched.pop(name, None)
        self._stalls.follow(self._pool.lines, gone)
        await self._pool.remove(gone)
        self._stalls.follow(self._pool.lines)
        self.went += len(gone)
        self._log.info("symbols dropped, nobody watches them", symbols=len(gone), names=gone[:SHOWN_MAX])

    async def _retire(self, names: Iterable[str]) -> list[str]:
        """Write down that these are not followed any more; those for which the registry has taken it."""
        held = (self._symbols.find(name) for name in names)
        records = [record_of(symbol)._replace(is_active=False) for symbol in held if symbol is not None]
        retired = [symbol for symbol in await self._write(records) if not symbol.is_active]
        for symbol in retired:
            self._symbols.put(symbol)
        return [symbol.symbol for symbol in retired]

    async def _retire_left_over(self) -> bool:
        """Some of the symbols that an earlier run followed, and this one does not. True when none is left."""
        names = [
            symbol.symbol
            for symbol in self._symbols
            if symbol.is_active and symbol.symbol not in self._configured | self._watched
        ]
        if names:
            await self._retire(names[:LEFT_OVER_AT_ONCE])
        return not names

    # What operators see.

    def _tell(self, symbols: Sequence[Symbol]) -> None:
        for tell in self.on_symbols:
            tell(symbols)

    def _report_unknown(self, names: Sequence[str]) -> None:
        fresh = sorted(set(names) - set(self.unknown))
        self.unknown = tuple(sorted(names))
        if fresh:
            self._log.warning(
                "watched symbols that the exchange does not have", symbols=len(fresh), names=fresh[:SHOWN_MAX]
            )

    def _report_refused(self, names: Sequence[str]) -> None:
        self.refused = tuple(names)
        if names and self._limiter.allow("refused", self._clock.steady_ns()) is not None:
            self._log.warning(
                "no room for more symbols at the exchange: raise exchange.max_connections "
                "(EXCHANGE_MAX_CONNECTIONS)",
                symbols=len(names),
                names=list(names[:SHOWN_MAX]),
            )

    def _note(self, error: str | None) -> None:
        """The outcome of a round."""
        if error is not None and self._limiter.allow("failed", self._clock.steady_ns()) is not None:
            self._log.warning("the subscriptions cannot follow the market watches", reason=error)
        if error is None and self.refused:
            error = (
                f"{len(self.refused)} watched symbols do not fit: raise exchange.max_connections "
                "(EXCHANGE_MAX_CONNECTIONS)"
            )
        state: State = "ok" if error is None else "degraded"
        if state != self._state:
            self._state, self._since_ns = state, self._clock.wall_ns()
        self._error = error

    def health(self) -> ComponentHealth:
        """degraded while watches cannot be read, or not all that is watched can be carried."""
        details: dict[str, Any] = {
            "configured": len(self._configured),
            "watched": len(self._watched),
            "carried": len(self._pool.placement),
            "unwatched": len(self._unwatched),
            "room": self._pool.placement.room,
            "waiting": list(self.waiting[:SHOWN_MAX]),
            "refused": list(self.refused[:SHOWN_MAX]),
            "unknown": list(self.unknown[:SHOWN_MAX]),
        }
        return ComponentHealth(self.name, self._state, self._since_ns, self._error, details=details)

    def collect(self) -> Iterator[Family]:
        """How many symbols are carried and why others are not."""
        gauges = (
            ("carried", len(self._pool.placement), "Symbols subscribed at the exchange."),
            ("watched", len(self._watched), "Symbols in market watches that are not configured."),
            ("unwatched", len(self._unwatched), "Symbols still subscribed that nobody watches any more."),
            ("waiting", len(self.waiting), "Watched symbols without description or id as yet."),
            ("refused", len(self.refused), "Watched symbols for which there is no room."),
            ("unknown", len(self.unknown), "Watched symbols that the exchange does not have."),
        )
        yield from unlabelled("tradeback_symbols_", "gauge", gauges)
        counts = (
            ("added", self.came, "Symbols subscribed because somebody watches them."),
            ("dropped", self.went, "Symbols dropped because nobody watches them."),
            ("watch_readings", self.readings, "Readings of the market watches."),
            ("watch_failures", self.failures, "Rounds that could not be finished."),
        )
        yield from unlabelled("tradeback_symbols_", "counter", counts)
