"""The path as Python sees it: its memory, who is served, and what the kernels leave to Python."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tradeback.model.record import ROW_BYTES, Rows
from tradeback.ops.metrics import Histogram
from tradeback.path import layout as at

RESTS_FIRST = 64


class HotTape(Protocol):
    """What is read of the tape: its hot ring."""

    rows: Rows
    rows_address: int
    hot_rows: int
    next_sequence: int
    epoch: int


class Station(Protocol):
    """An encoder of the feed with its clients. Words of the path (see `layout`) tell the kernels of it."""

    def grow(self) -> None:
        """The arena is too small for a single record: make it larger."""

    def left_over(self, rests: NDArray[np.int64], position: int) -> None:
        """Look after the clients that the kernel could not serve, and those to whom Python writes.

        `rests` (int64[n, REST_WORDS]) are the sockets that did not take everything. What was sent stands
        in the arena until this returns. `position` is the sequence that all clients have reached then.
        """


class Derives(Protocol):
    """A state that is derived from the records by a kernel."""

    def on_rows(self, first_row_address: int, n: int) -> None:
        """Fold `n` contiguous records into the state."""


class Path:
    """One per process; serves the records of one tape. Loop thread only."""

    def __init__(self, tape: HotTape) -> None:
        self.tape = tape
        self.words: NDArray[np.int64] = np.zeros(at.PATH_WORDS, np.int64)
        self.view: Any = self.words.data
        """The same words; a memoryview is read twice as fast as numpy."""
        self.address = int(self.words.ctypes.data)
        self.publish_latency = Histogram()
        """Receive -> last send, us, per trade."""
        self._mask = tape.hot_rows - 1
        self._stations: list[Station] = []
        self._derived: Derives | None = None
        self._timespec = np.zeros(2, np.int64)
        self._wakes: NDArray[np.int32] = np.zeros(0, np.int32)
        self._serve: Callable[[int, int, int, int, int, int, int], int] | None = None
        self.words[at.ROWS] = tape.rows_address
        self.words[at.HOT_ROWS] = tape.hot_rows
        latency = self.publish_latency
        self.words[at.LATENCY_BOUNDS] = latency.bounds.ctypes.data
        self.words[at.LATENCY_BUCKETS] = len(latency.bounds)
        self.words[at.LATENCY_COUNTS] = latency.counts.ctypes.data
        self.words[at.LATENCY_SUMS] = latency.sums.ctypes.data
        self.words[at.TIMESPEC] = self._timespec.ctypes.data
        self.words[at.ONE] = 1
        self._rests: NDArray[np.int64] = np.zeros((0, at.REST_WORDS), np.int64)
        self.make_room(RESTS_FIRST)

    @property
    def trades(self) -> int:
        """Trades served since the start."""
        return int(self.words[at.TRADES])

    def attach(self) -> None:
        """Take the kernels. A thread should have imported them before."""
        from tradeback.kernel.jit import entry
        from tradeback.path.path_kernel import serve

        self._serve = entry(serve)

    def add_station(self, station: Station, encode_address: int, version: int = 1) -> NDArray[np.int64]:
        """Serve this one too, behind those before it. Returns its words (a view) for it to fill.

        ValueError when there are STATIONS_MAX already.
        """
        index = len(self._stations)
        if index == at.STATIONS_MAX:
            raise ValueError(f"a path has {at.STATIONS_MAX} stations at the most")
        start = at.FIRST_STATION + at.STATION_WORDS * index
        words = self.words[start : start + at.STATION_WORDS]
        words[at.STATION_ENCODE] = encode_address
        words[at.STATION_VERSION] = version
        self._stations.append(station)
        self.words[at.STATIONS] = len(self._stations)
        return words

    def derive(self, derived: Derives, apply_address: int, context_address: int) -> None:
        """Fold every record into this state, after the feed has been served."""
        self._derived = derived
        self.words[at.DERIVE] = apply_address
        self.words[at.DERIVE_CONTEXT] = context_address

    def announce(self, published_address: int, wakes: Sequence[int]) -> None:
        """Tell readers in other processes of every commit: the sequence that follows, and eventfds (not
        blocking) that wake them. They read the tape's files."""
        self._wakes = np.array(wakes, np.int32)
        self.words[at.WAKES] = self._wakes.ctypes.data
        self.words[at.WAKE_COUNT] = len(wakes)
        self.words[at.PUBLISHED] = published_address

    def make_room(self, clients: int) -> None:
        """Room for as many sockets that do not take everything."""
        if clients > len(self._rests):
            self._rests = np.zeros((2 * clients, at.REST_WORDS), np.int64)
            self.words[at.RESTS] = self._rests.ctypes.data

    def serve(self, first_sequence: int, n: int) -> None:
        """Serve `n` committed records, contiguous in the ring. RuntimeError before `attach`."""
        if self._serve is None:
            raise RuntimeError("records came before attach(): the kernels are not loaded")
        if self._serve(self.address, self._row(first_sequence), n, first_sequence, self.tape.epoch, 0, 0):
            self._go_on(first_sequence, n)

    def attend(self, first_sequence: int, n: int) -> None:
        """After a call of a kernel that served these records: do what it left to Python, if anything."""
        if self.view[at.ATTENTION]:
            self._go_on(first_sequence, n)

    def _row(self, sequence: int) -> int:
        return self.tape.rows_address + (sequence & self._mask) * ROW_BYTES

    def _go_on(self, first: int, n: int) -> None:
        """Do what the kernel could not, and let it go on where it stopped, until all are served."""
        assert self._serve is not None
        view, attention = self.view, int(self.view[at.ATTENTION])
        while attention:
            done = int(view[at.AT_ROW])
            if attention == at.DERIVE_SHORT:
                assert self._derived is not None
                self._derived.on_rows(self._row(first) + ROW_BYTES * done, n - done)
                return
            index = int(view[at.AT_STATION])
            station = self._stations[index]
            if attention == at.GROW:
                station.grow()
            else:
                station.left_over(self._rests[: int(view[at.REST_COUNT])], first + done)
            attention = self._serve(self.address, self._row(first), n, first, self.tape.epoch, index, done)
