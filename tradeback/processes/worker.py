"""A feed worker: serves the WebSocket clients that the engine hands over, from the tape's files.

The engine's path writes an eventfd after every commit; this process then reads the new records into a
ring of its own, verifies them, and serves them by the very same path: feed stations, derived series.
A killed engine is no news to its clients, who go on when the tape does.
"""

import asyncio
import contextlib
import os
import socket
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from tradeback.derive.row_kernel import apply_rows
from tradeback.derive.state import Derived
from tradeback.feed.admission import Admission, unpacked
from tradeback.feed.announce import announce
from tradeback.feed.front import become_websocket
from tradeback.kernel.jit import address
from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.ops.health import ComponentHealth
from tradeback.ops.log import Log
from tradeback.ops.runtime import Runtime
from tradeback.path.follower import Follower
from tradeback.processes.accepted import transport_of
from tradeback.processes.link import Link, Listener, Message
from tradeback.processes.member import Reporter, symbols_of
from tradeback.processes.page import SharedPage
from tradeback.processes.series import StoreOfAnother
from tradeback.processes.setup import Setup, socket_of
from tradeback.serving import make_attendance, make_feed
from tradeback.sinks.series_replay import restore
from tradeback.stores.registry import open_registry
from tradeback.stores.registry_sqlite import FILE_NAME, RegistrySqlite
from tradeback.stores.series_sqlite import SeriesSqlite
from tradeback.tape.reader import TapeReader

POLL_S = 0.1
"""How often the tape is looked at without being woken: the engine may have died between append and wake."""
ARRIVING_S = 1.0
ROUNDS_MAX = 8
"""Reads of the tape after which the loop does other work."""


class Worker:
    """`start`, then it works by callbacks, `stop`."""

    def __init__(self, setup: Setup, clock: Clock, log: Log) -> None:
        self._config = _share(setup.config)
        self._log, self._since_ns = log, clock.wall_ns()
        self._name = setup.name
        self._folder = Path(setup.config.data_dir)
        self._page = SharedPage(setup.page_fd)
        self._generation = self._page.generation
        self._wake_fd = setup.wake_fds[0]
        self._symbols = SymbolTable()
        self._derived = Derived()
        self._learn_symbols()
        self.tape = Follower(self._folder / "tape", setup.config.tape.hot_rows, lambda: self._page.published)
        self.feed = make_feed(self._config, clock, self._symbols, self.tape, lambda: self._derived)
        self._path = self.feed.path
        self._path.derive(self._derived, address(apply_rows), self._derived.context_address)
        registry = RegistrySqlite(self._folder / FILE_NAME)
        self._accounts = open_registry(setup.config, registry, clock, log)
        self._registry = registry
        self.attendance = make_attendance(setup.config, clock, self.feed, self._accounts.accounts, log)
        self._listen_fd = setup.listen_fd
        self._listener: Listener | None = None
        self._reporter: Reporter | None = None
        self._arriving: set[asyncio.Task[None]] = set()
        self._poll: asyncio.TimerHandle | None = None
        self._error: str | None = None

    async def start(self) -> None:
        """Learn what is known, follow the tape, take clients."""
        await asyncio.to_thread(self._restore)
        self.feed.attach_kernels()
        self.feed.start()
        self.attendance.start()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._wake_fd, self._woken)
        self._look()
        self._listener = Listener(socket_of(self._listen_fd), self._greet, self._on_message)
        self._reporter = Reporter(self._listener, self._more)
        self._reporter.collectors.append(Runtime(self._name))
        self._reporter.components += [self, self.feed]
        self._reporter.collectors += [self.feed, self.attendance]
        self._reporter.start()

    async def stop(self, *, restarting: bool = False) -> None:
        """Clients get what is on the tape, are told (1001; 1012 when `restarting`), then all ends."""
        self.feed.turn_away(restarting=restarting)
        self._follow()
        if self._poll is not None:
            self._poll.cancel()
        asyncio.get_running_loop().remove_reader(self._wake_fd)
        if self._reporter is not None:
            self._reporter.close()
        if self._listener is not None:
            for link in list(self._listener.links):
                link.read_rest()
        if self._arriving:
            await asyncio.wait(self._arriving, timeout=ARRIVING_S)  # they are refused
        if self._listener is not None:
            self._listener.close()
        for task in self._arriving:
            task.cancel()
        await asyncio.gather(*self._arriving, return_exceptions=True)
        await self.attendance.stop()
        await self.feed.close()
        await self._accounts.close()
        self._registry.close()
        self.tape.close()

    def health(self) -> ComponentHealth:
        """Degraded while the tape cannot be read."""
        state = "ok" if self._error is None else "degraded"
        return ComponentHealth("follower", state, self._since_ns, self._error)  # type: ignore[arg-type]

    def _restore(self) -> None:
        """The store first, then the tape's end: so the store is never ahead. In a thread."""
        store = SeriesSqlite(self._folder / "series.sqlite")
        try:
            stored = store.load()
        finally:
            store.close()
        end = self._page.published
        reader = TapeReader(self._folder / "tape")
        restored = restore(self._derived, StoreOfAnother(stored), reader, end)
        self._derived.forget_changes()
        self._log.info("restored", how=restored.how, records=restored.records, reason=restored.reason or None)
        self.tape.begin(end)

    def _learn_symbols(self) -> list[Symbol]:
        """Read the registry; what is new in it or described anew."""
        self._generation = self._page.generation
        found = symbols_of(self._folder)
        fresh = [symbol for symbol in found if self._symbols.by_id(symbol.id) != symbol]
        for symbol in fresh:
            self._symbols.put(symbol)
            self._derived.add_symbol(symbol)
        return fresh

    # Following the tape.

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)
        self._follow()

    def _look(self) -> None:
        self._poll = asyncio.get_running_loop().call_later(POLL_S, self._look)
        if self._page.generation != self._generation:
            self._meet_engine()
        if self._derived.closed_count:
            self._derived.forget_changes()
        self._follow()

    def _follow(self) -> None:
        """Serve what is new."""
        tape = self.tape
        try:
            for _ in range(ROUNDS_MAX):
                count = tape.pull()
                if not count:
                    break
                # After the records: whoever wrote them was of this generation or an earlier one.
                if self._page.generation != self._generation:
                    announce(self.feed, self._learn_symbols())
                self._path.serve(tape.next_sequence - count, count)
            else:
                asyncio.get_running_loop().call_soon(self._follow)
        except OSError as error:
            if self._error is None:
                self._log.error("the tape cannot be read", error=str(error))
            self._error = str(error)
        else:
            self._error = None

    def _meet_engine(self) -> None:
        """Symbols have come, or a new engine has: with symbols, and perhaps without the tape's tail."""
        announce(self.feed, self._learn_symbols())
        before = self.tape.stepped_back
        self.tape.check()
        if self.tape.stepped_back > before:
            self._log.error(
                "the tape has lost records that were served", records=self.tape.stepped_back - before
            )

    # Clients.

    def _greet(self, link: Link) -> None:
        if self._reporter is not None:
            self._reporter.send_to(link)

    def _more(self) -> dict[str, Any]:
        return {"clients": len(self.feed.clients), "behind": self.tape.behind}

    def _on_message(self, link: Link, message: Message, behind: bytes, files: list[int]) -> None:
        if "client" not in message:
            self._hear(message)
            return
        # What the client has seen elsewhere is published: with this it is not ahead of this process.
        self._follow()
        admission = unpacked(message["client"])
        for descriptor in files:
            task = asyncio.create_task(self._take(socket.socket(fileno=descriptor), behind, admission))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    def _hear(self, message: Message) -> None:
        """Of sessions and market watches, see `api.access`."""
        if "ended" in message:
            self.attendance.ended(message["ended"])
        elif "watch" in message:
            self.attendance.changed(message["watch"])
        elif "push" in message:
            self.attendance.push(message["push"], message["message"])

    async def _take(self, sock: socket.socket, data: bytes, admission: Admission) -> None:
        """Serve the connection on which `data` has been read by the engine, for whom that let in."""
        transport = await transport_of(sock)
        if transport is not None:
            become_websocket(transport, partial(self.feed.accept, admission=admission), data)


def _share(config: Config) -> Config:
    """The configuration with this worker's share of the clients; who has the fewest gets the next."""
    feed, workers = config.feed, max(1, config.feed.workers)
    most, each = -(-feed.clients_max // workers), -(-feed.clients_per_address // workers)
    shared = msgspec.structs.replace(feed, clients_max=most, clients_per_address=each)
    return msgspec.structs.replace(config, feed=shared)
