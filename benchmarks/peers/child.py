"""What every peer's script has in common: its task, a record of what its callbacks got, the result as JSON.

Runs under the Python of the peer's own environment: standard library only.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

POLL_S = 0.02
STEADY_S_MAX = 15.0
QUIET, FAILED = 3, 4
"""Exit codes: nothing ever came; the peer gave up."""


class Task:
    """What the driver asks for, as it stands in the JSON of the first argument.

    `ws`, `rest`, `url` (of an engine): addresses. `symbols`: [name, base, quote] each. `count_only`: keep no
    ids and times. `warm_s`, `seconds`: the window begins so long after the first event, and lasts so long.
    `quiet_s`: how long to wait for the first event. `beside`: process ids whose work belongs to this peer,
    by name. `result`: the file for the result. `library`: which one a peer with a choice shall use.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.ws: str = values["ws"]
        self.rest: str = values["rest"]
        self.url: str = values.get("url", "")
        self.symbols: list[list[str]] = values["symbols"]
        self.count_only: bool = values["count_only"]
        self.warm_s: float = values["warm_s"]
        self.seconds: float = values["seconds"]
        self.quiet_s: float = values["quiet_s"]
        self.beside: dict[str, int] = values.get("beside", {})
        self.result = Path(values["result"])
        self.library: str = values.get("library", "")

    @property
    def names(self) -> list[str]:
        """BTCUSDT, ..."""
        return [name for name, _, _ in self.symbols]

    def streams(self, *kinds: str) -> list[str]:
        """btcusdt@trade, ..."""
        return [f"{name.lower()}@{kind}" for name in self.names for kind in kinds]


class Record:
    """Called by the peer's callbacks. Counting is all that it does where the speed is measured."""

    def __init__(self, task: Task) -> None:
        self.trades = 0
        self.quotes = 0
        self.conflated = 0
        """Quotes that were decoded, but that no callback was shown, because a newer one came first."""
        self.got: list[tuple[str, int, int]] = []
        """(symbol, id, wall clock in ns)."""
        self.stood_in: list[tuple[str, int, int]] = []
        """(symbol, first id, last id): one record in the place of several trades."""
        self.told: list[list[Any]] = []
        """What the user was told of breaks: [kind, wall clock in ns, words]."""
        self.gaps: list[list[Any]] = []
        """Ids that the user was told of: [symbol, state, first id, last id, still missing]."""
        self.steady = True
        """A peer that works otherwise at first sets it to False until it does not any more."""
        self._keeps = not task.count_only

    def trade(self, symbol: str, trade_id: int) -> None:
        """One trade; of a peer that takes aggregates, one aggregate."""
        self.trades += 1
        if self._keeps:
            self.got.append((symbol, trade_id, time.time_ns()))

    def quote(self) -> None:
        """One best bid and ask."""
        self.quotes += 1

    def tell(self, kind: str, words: str) -> None:
        """The user learned that something broke."""
        self.told.append([kind, time.time_ns(), words[:200]])

    @property
    def events(self) -> int:
        """Everything digested."""
        return self.trades + self.quotes + self.conflated


def _cpu_ns(pid: int) -> int:
    """CPU time of a process with all its threads (CPUCLOCK_SCHED of that process)."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def _status_mb(pid: int, key: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _held_up_ns(pid: int) -> int:
    """How long its threads were ready to run while their core ran others."""
    waited = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            waited += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[1])
        except (OSError, IndexError):
            continue  # it has ended
    return waited


class _Glance:
    """Everything at one moment."""

    def __init__(self, record: Record, pids: Mapping[str, int]) -> None:
        self.counts = {"trades": record.trades, "quotes": record.quotes, "conflated": record.conflated}
        self.wall_ns, self.steady_ns = time.time_ns(), time.monotonic_ns()
        self.cpu_ns = {name: _cpu_ns(pid) for name, pid in pids.items()}
        self.rss_mb = {name: _status_mb(pid, "VmRSS") for name, pid in pids.items()}
        self.peak_mb = {name: _status_mb(pid, "VmHWM") for name, pid in pids.items()}
        self.held_up_ns = _held_up_ns(pids["peer"])


def _result(
    begin: _Glance, end: _Glance, record: Record, versions: Mapping[str, str], started_mb: float
) -> dict[str, Any]:
    return {
        "versions": dict(versions),
        "python": sys.version.split()[0],
        "begin_ns": begin.wall_ns,
        "end_ns": end.wall_ns,
        "wall_s": (end.steady_ns - begin.steady_ns) / 1e9,
        "cpu_s": {name: (end.cpu_ns[name] - begin.cpu_ns[name]) / 1e9 for name in end.cpu_ns},
        "rss_start_mb": started_mb,
        "rss_mb": end.rss_mb,
        "peak_mb": end.peak_mb,
        "held_up_s": (end.held_up_ns - begin.held_up_ns) / 1e9,
        **{name: end.counts[name] - begin.counts[name] for name in end.counts},
        "got": record.got,
        "stood_in": record.stood_in,
        "told": record.told,
        "gaps": record.gaps,
    }


def _write(path: Path, result: Mapping[str, Any]) -> None:
    half = path.with_suffix(".part")
    half.write_text(json.dumps(result))
    half.rename(path)


def _versions(distributions: tuple[str, ...]) -> dict[str, str]:
    return {name: metadata.version(name) for name in distributions}


def _watch(task: Task, record: Record, versions: Mapping[str, str]) -> None:
    pids = {"peer": os.getpid(), **task.beside}
    started_mb = _status_mb(os.getpid(), "VmRSS")
    patience = time.monotonic() + task.quiet_s
    while not record.events:
        if time.monotonic() > patience:
            print(f"nothing came in {task.quiet_s:.0f} s", file=sys.stderr, flush=True)
            os._exit(QUIET)
        time.sleep(POLL_S)
    patience = time.monotonic() + STEADY_S_MAX
    while not record.steady and time.monotonic() < patience:
        time.sleep(POLL_S)
    time.sleep(task.warm_s)
    begin = _Glance(record, pids)
    time.sleep(task.seconds)
    end = _Glance(record, pids)
    _write(task.result, _result(begin, end, record, versions, started_mb))
    # Whatever threads and loops the library has: it is not asked.
    os._exit(0)


def main(run: Callable[[Task, Record], None], *distributions: str) -> None:
    """Run a peer until its window is over: `run` never returns of itself, or it has given up."""
    task = Task(json.loads(sys.argv[1]))
    record = Record(task)
    watch = threading.Thread(target=_watch, args=(task, record, _versions(distributions)), daemon=True)
    watch.start()
    run(task, record)
    record.tell("gave up", "the library's own loop has ended")
    print("the library's own loop has ended", file=sys.stderr, flush=True)
    watch.join()
    os._exit(FAILED)
