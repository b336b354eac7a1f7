"""The engine's side of the other processes: who they are, how they are, and who serves a new client."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path as Folder
from typing import Any

from tradeback.feed.admission import NOBODY, Admission
from tradeback.ops.health import ComponentHealth
from tradeback.ops.metrics import Family, unlabelled
from tradeback.path.path import Path
from tradeback.processes.link import Message
from tradeback.processes.member import Control
from tradeback.processes.page import SharedPage
from tradeback.processes.peers import Peer
from tradeback.processes.report import unpack_families
from tradeback.processes.series import RecordedSeries
from tradeback.processes.setup import RECORDER, WORKER, Setup, socket_of

HAND_OVER_BYTES_MAX = 64 * 1024
"""A client that has sent more than this behind its request head is served by the engine."""
START_S = 10.0
"""A process that runs for this long without a report hangs."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Hub:
    """One per engine process; needs the running loop. Loop thread only."""

    def __init__(self, setup: Setup, control: Control) -> None:
        self.control = control
        self.sockets: list[socket.socket] = [socket_of(descriptor) for descriptor in setup.port_fds]
        """The listening sockets, which are open longer than this process."""
        self.processes: dict[str, dict[str, Any]] = {}
        """What the supervisor says of each process, by name."""
        self.workers = [
            Peer(name, address, lambda message, behind: None)
            for name, address in setup.addresses.items()
            if name.startswith(WORKER)
        ]
        self.handed_over = self.kept = 0
        self.handed_history = self.taken_back = 0
        # Behind a proxy the requests of several clients come on one connection; where sessions are needed,
        # each request has to be looked up.
        self._shares_history = setup.config.auth.mode == "open" and not setup.config.server.proxies
        self._page, self._wakes = SharedPage(setup.page_fd), setup.wake_fds
        self.series = RecordedSeries(setup.addresses[RECORDER], lambda: self._page.published)
        self.series.peer.on_files = self._take_back
        self.adopt: Callable[[socket.socket, bytes], Coroutine[Any, Any, None]] | None = None
        """Serves a connection that the recorder gives back."""
        self._adopting: set[asyncio.Task[None]] = set()
        self._names = ("engine", *setup.addresses)
        self.components = [_ProcessHealth(self, name) for name in self._names]
        control.listen(self._on_control)

    def start(self, path: Path, next_sequence: int) -> None:
        """The engine is up: the others may read the tape up to here, and are told of every commit."""
        path.announce(self._page.published_address, self._wakes)
        self._page.come_up(next_sequence)
        for worker in self.workers:
            worker.start()
        self.control.tell({"up": True})

    def symbols_came(self) -> None:
        """Let the others read the registry before the next record."""
        self._page.symbols_came()

    def close(self) -> None:
        """Give the links to workers up."""
        for worker in self.workers:
            worker.close()

    def tell_workers(self, message: Message) -> None:
        """What happened to a session or a market watch; one without a link learns it later, by itself."""
        for worker in self.workers:
            worker.send(message)

    def hand_over(self, transport: Any, data: bytes, admission: Admission = NOBODY) -> bool:
        """Let a worker serve this connection, on which `data` (a request to upgrade) has come.

        False: there is none that answers, so the engine serves it. Otherwise the transport is closed here.
        """
        alive = [worker for worker in self.workers if worker.alive]
        if not alive or len(data) > HAND_OVER_BYTES_MAX:
            self.kept += bool(self.workers)
            return False
        worker = min(alive, key=lambda peer: peer.clients)
        transport.pause_reading()
        descriptor = transport.get_extra_info("socket").fileno()
        if not worker.send({"client": admission.packed()}, data, (descriptor,)):
            self.kept += 1
            transport.resume_reading()
            return False
        worker.since_report += 1
        self.handed_over += 1
        # Only this process's descriptor: the connection lives on in the worker.
        transport.abort()
        return True

    def hand_history(self, transport: Any, data: bytes) -> bool:
        """Let the recorder answer on this connection, on which `data` (a request for history) has come.

        False: it does not answer now, so the engine does. Otherwise the transport is closed here.
        """
        recorder = self.series.peer
        if not self._shares_history or not recorder.alive or len(data) > HAND_OVER_BYTES_MAX:
            return False
        transport.pause_reading()
        descriptor = transport.get_extra_info("socket").fileno()
        if not recorder.send({"http": True}, data, (descriptor,)):
            transport.resume_reading()
            return False
        self.handed_history += 1
        transport.abort()  # as in `hand_over`
        return True

    def _take_back(self, message: Message, behind: bytes, files: list[int]) -> None:
        """Something else was asked on a connection that the recorder had."""
        for descriptor in files:
            if self.adopt is None:
                os.close(descriptor)
                continue
            self.taken_back += 1
            task = asyncio.create_task(self.adopt(socket.socket(fileno=descriptor), behind))
            self._adopting.add(task)
            task.add_done_callback(self._adopting.discard)

    def collect(self) -> Iterator[Family]:
        """Processes, clients handed over, and the workers' own numbers under the label `worker`."""
        restarts = Family("tradeback_process_restarts", "counter", "Times a process was started again.")
        uptime = Family(
            "tradeback_process_uptime_seconds", "gauge", "Since the process was started; 0: down."
        )
        resident = Family("tradeback_process_resident_bytes", "gauge", "Memory of the process in RAM.")
        for name in self._names:
            known = self.processes.get(name, {})
            restarts.add(known.get("restarts", 0), process=name)
            uptime.add(uptime_s(known), process=name)
            resident.add(resident_bytes(known), process=name)
        yield from (restarts, uptime, resident)
        history = (
            ("handed", self.handed_history, "Connections given to the recorder, which answers for history."),
            ("taken_back", self.taken_back, "Those on which something else was asked then."),
        )
        yield from unlabelled("tradeback_history_", "counter", history)
        if self.workers:
            counts = (
                ("handed_over", self.handed_over, "Clients given to feed workers."),
                ("kept", self.kept, "Clients served by the engine because no worker answered."),
            )
            yield from unlabelled("tradeback_workers_", "counter", counts)
        for number, worker in enumerate(self.workers):
            yield from unpack_families(worker.report.get("families", ()), worker=str(number))

    def health_of(self, name: str) -> ComponentHealth:
        """One process: ok while it runs and answers."""
        known = self.processes.get(name, {})
        peer = next((peer for peer in (*self.workers, self.series.peer) if peer.name == name), None)
        since_ns = int(known.get("since_ns", 0))
        details = {
            "pid": known.get("pid"),
            "restarts": known.get("restarts", 0),
            "uptime_s": round(uptime_s(known), 1),
            "resident_bytes": resident_bytes(known),
            "last_end": known.get("last_end"),
        }
        if peer is not None:
            details |= {key: peer.report[key] for key in ("clients", "behind") if key in peer.report}
        ended = known.get("last_end") or {}
        if known.get("pid") is None:
            words = f"{ended['how']}: {ended['words']}" if ended else "it has not been started yet"
            return _health(name, "degraded" if ended else "starting", since_ns, words, details)
        if peer is None or peer.alive:
            return _health(name, "ok", since_ns, None, details)
        if uptime_s(known) < START_S:
            return _health(name, "starting", since_ns, None, details)
        return _health(name, "degraded", since_ns, "it runs but does not answer", details)

    def _on_control(self, message: Message) -> None:
        for known in message.get("processes", ()):
            self.processes[known["name"]] = known


class _ProcessHealth:
    """One process among the components."""

    def __init__(self, hub: Hub, name: str) -> None:
        self._hub, self._name = hub, name

    def health(self) -> ComponentHealth:
        """See `Hub.health_of`."""
        return self._hub.health_of(self._name)


def _health(name: str, state: Any, since_ns: int, words: str | None, details: Any) -> ComponentHealth:
    return ComponentHealth(f"process:{name}", state, since_ns, words, None, details)


def uptime_s(known: dict[str, Any]) -> float:
    """Since the process was started; 0 when it does not run."""
    return (time.time_ns() - known["since_ns"]) / 1e9 if known.get("pid") else 0.0


def resident_bytes(known: dict[str, Any]) -> int:
    """Memory of the process in RAM; 0 when it does not run."""
    pid = known.get("pid")
    if not pid:
        return 0
    try:
        return int(Folder(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0
