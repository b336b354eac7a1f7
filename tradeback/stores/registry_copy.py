"""Symbols where MySQL is the registry: MySQL gives the ids, a copy of them in SQLite serves while it is away.

The copy is what a start begins with, so a start never waits for MySQL, and what other processes of this
engine read. While MySQL is away known symbols keep their ids from the copy, and new symbols wait: an id
that only one engine knows could mean something else to another one tomorrow. A MySQL that refuses
(credentials, rights, tables of another version) is as away as one that is down: somebody mends it, and it is
found again. Ids that the copy held before MySQL was configured are on the tape already; MySQL takes them
over, or, where it knows them otherwise, the start is refused.

`is_active` in the copy says what this engine follows, and only the copy is ever asked for it. In MySQL it
is what the engine said that wrote last: engines with different symbols overwrite each other's, and no engine
reads it.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tradeback.model.clock import Clock
from tradeback.model.errors import StartupError, StoreError
from tradeback.model.symbols import Symbol
from tradeback.ops.health import ComponentHealth, State
from tradeback.ops.log import Log
from tradeback.ops.tasks import finish
from tradeback.ops.troubles import Troubles
from tradeback.stores.mysql import HANGS, Refused, Unreachable
from tradeback.stores.ports import SymbolRecord
from tradeback.stores.registry_mysql import WrongIds
from tradeback.stores.registry_sqlite import RegistrySqlite

START_TIMEOUT_S = 2.0
"""How long the assignment of ids waits for a MySQL that hangs, where the copy could serve."""
RETRY_S = (0.25, 0.5, 1.0, 2.0, 5.0)


class Truth(Protocol):
    """The part of `RegistryMysql` that gives ids."""

    async def check(self) -> None:
        """Raises Unreachable, Refused."""

    async def assign_ids(self, records: Sequence[SymbolRecord], held: Sequence[Symbol] = ()) -> list[Symbol]:
        """See `RegistryMysql`."""


class SymbolCopy:
    """`ports.SymbolIds` over MySQL and the copy of its symbols. Loop thread only."""

    def __init__(self, truth: Truth, copy: RegistrySqlite, clock: Clock, log: Log) -> None:
        self.on_assigned: list[Callable[[list[Symbol]], None]] = []
        """Called with symbols that had to wait for their ids, once they have them."""
        self._truth, self._copy, self._clock, self._log = truth, copy, clock, log
        self._waiting: dict[str, SymbolRecord] = {}
        self._one_at_a_time = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._state: State = "starting"
        self._since_ns = clock.wall_ns()
        self._error: str | None = None
        self._troubles, self._told = Troubles(clock), False
        self.waits = False
        """A start waits: none of its symbols has an id."""
        self._agreed = False
        """Whether the copy's ids have been compared with MySQL's in this run."""

    @property
    def waiting(self) -> list[str]:
        """Symbols that wait for an id."""
        return list(self._waiting)

    async def all_symbols(self) -> list[Symbol]:
        """The copy: what this engine has ever used."""
        return await self._copy.all_symbols()

    async def assign_ids(self, records: Sequence[SymbolRecord]) -> list[Symbol]:
        """The symbols in the order of `records`, without those that have to wait for MySQL (`waiting`).

        Waits itself while none of them is known. Raises StartupError when MySQL knows other ids than the
        tape's, before it has ever agreed in this run.
        """
        wanted = {record[0]: SymbolRecord._make(record) for record in records}
        for attempt in range(1 << 30):
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    return await self._assign(list(wanted.values()))
            except TimeoutError:
                self._note("degraded", f"MySQL does not answer (within {START_TIMEOUT_S:g} s): {HANGS}")
            except (Unreachable, Refused) as error:
                if isinstance(error, WrongIds) and not self._agreed:
                    raise StartupError(str(error)) from error
                self._note("degraded", str(error))
            known = {symbol.symbol: symbol for symbol in await self._copy.all_symbols()}
            self._waiting |= {name: record for name, record in wanted.items() if name not in known}
            if any(name in known for name in wanted) or not wanted:
                return [known[name] for name in wanted if name in known]
            self.waits = True
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
        raise AssertionError("unreachable: the loop ends by returning")

    def start(self) -> None:
        """Watch MySQL from now on, and give ids to what waits."""
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End the watching."""
        if self._task is not None:
            await finish([self._task])

    @property
    def missing(self) -> str | None:
        """What keeps a start from coming up, with the remedy; None when it is not MySQL."""
        return f"the first symbol ids, which MySQL gives: {self._error}" if self.waits else None

    def health(self) -> ComponentHealth:
        """See `HasHealth`. Degraded, never down: the feed runs without."""
        details: dict[str, Any] = {"kind": "mysql", "symbols_waiting": len(self._waiting)}
        return ComponentHealth("store:registry", self._state, self._since_ns, self._error, details=details)

    async def _assign(self, records: list[SymbolRecord]) -> list[Symbol]:
        async with self._one_at_a_time:
            await self._truth.check()
            # All of them, every time: a server that crashed may have lost what it had confirmed.
            found = await self._truth.assign_ids(records, await self._copy.all_symbols())
            # Before anybody uses them: what stands on the tape can always be named.
            await asyncio.to_thread(self._copy.copy, found)
        self._agreed, self.waits = True, False
        for symbol in found:
            self._waiting.pop(symbol.symbol, None)
        self._note("ok", None)
        return found

    async def _watch(self) -> None:
        """Until it is stopped: asks quickly while something is wrong, every 5 s otherwise."""
        failures = 0
        while True:
            await asyncio.sleep(RETRY_S[-1] if not failures else RETRY_S[min(failures, len(RETRY_S)) - 1])
            try:
                await self._look()
                failures = 0
            except StoreError as error:
                failures += 1
                self._note("degraded", str(error))

    async def _look(self) -> None:
        waiting = list(self._waiting.values())
        if not waiting and self._agreed:
            await self._truth.check()
            self._note("ok", None)
            return
        came = await self._assign(waiting)
        if came:
            self._log.info("symbols have their ids now", symbols=[symbol.symbol for symbol in came])
            for notify in self.on_assigned:
                notify(came)

    def _note(self, state: State, error: str | None) -> None:
        if state != self._state:
            self._since_ns = self._clock.wall_ns()
        self._state, self._error = state, error
        if error is None:
            if self._told:
                self._log.info("the registry in MySQL is there again")
            self._told = False
        elif self._troubles.is_news(error):
            self._log.warning("the registry in MySQL is away; the copy of its symbols serves", reason=error)
            self._told = True
