"""Samples of a soak: columns of numbers over time, and how they are taken from processes and metrics."""

import os
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Any

from benchmarks.harness import machine
from benchmarks.harness.engine import Engine
from tradeback.client.scrape import Buckets, histogram, since

PUBLISH = "tradeback_publish_latency_seconds"
TASKS = "tradeback_tasks"
CLIENTS = "clients"
"""Their process among the others."""


@dataclass
class Samples:
    """Columns of one length; what was not measured is NaN. Times in seconds since the soak began."""

    times: list[float] = field(default_factory=list)
    columns: dict[str, list[float]] = field(default_factory=dict)

    def add(self, time_s: float, values: Mapping[str, float]) -> None:
        """One sample. A name that is new was not measured before."""
        for name in values.keys() - self.columns.keys():
            self.columns[name] = [nan] * len(self.times)
        self.times.append(time_s)
        for name, column in self.columns.items():
            column.append(float(values.get(name, nan)))

    def last(self, name: str) -> float:
        """The newest value that was measured; NaN when there is none."""
        return next((value for value in reversed(self.columns.get(name, [])) if isfinite(value)), nan)


def quantile_us(buckets: Buckets, share: float) -> float:
    """Quantile of a histogram in us, even inside its bucket as Prometheus does it; NaN when it is empty."""
    total = max(buckets.values(), default=0.0)
    if total <= 0:
        return nan
    wanted, lower, below = share * total, 0.0, 0.0
    for bound, count in buckets.items():
        if count >= wanted:
            if not isfinite(bound):
                return lower * 1e6
            return (lower + (bound - lower) * (wanted - below) / max(count - below, 1.0)) * 1e6
        lower, below = bound, count
    return lower * 1e6


def by_label(text: str, name: str, label: str) -> dict[str, float]:
    """Value of every sample of a metric by one of its labels."""
    found = {}
    for line in text.splitlines():
        if line.startswith(f"{name}{{"):
            labels, _, value = line[len(name) + 1 :].rpartition("} ")
            for pair in labels.split(","):
                key, _, quoted = pair.partition("=")
                if key == label:
                    found[quoted.strip('"')] = float(value)
    return found


def open_files(pid: int) -> int:
    """Descriptors that a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    """Threads of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("Threads:"):
            return int(line.split()[1])
    return 0


class Sampler:
    """Looks at the engine's processes, its metrics, and at the clients' process."""

    def __init__(self, engine: Engine, clients_pid: int) -> None:
        self.notes: list[str] = []
        """What went wrong with processes, in words."""
        self._engine, self._clients_pid = engine, clients_pid
        self._pids: dict[str, int] = {}
        self._used_ns: dict[str, tuple[int, int]] = {}
        """CPU time, time spent waiting for a core."""
        self._looked_s = 0.0
        self._latency: Buckets = {}

    def processes(self, now_s: float) -> dict[str, float]:
        """Memory in MB, descriptors, threads, CPU and waiting for a core in percent, for each process; PSS of
        all of the engine's. Waiting is of the main thread, which has the loop."""
        found: dict[str, float] = {}
        pss = 0.0
        passed_ns = (now_s - self._looked_s) * 1e9
        family = {**self._engine.family(), CLIENTS: self._clients_pid}
        for name, pid in family.items():
            try:
                figures = {
                    "rss": machine.rss_mb(pid),
                    "fds": open_files(pid),
                    "threads": threads(pid),
                }
                pss += machine.pss_mb(pid) if name != CLIENTS else 0.0
                cpu_ns, held_ns = machine.cpu_ns(pid), machine.held_up_ns(pid)
            except OSError:
                pss = nan  # it has ended: the next look finds another in its place
                continue
            if self._pids.get(name, pid) != pid:
                self.notes.append(f"{name} was started again after {now_s:.0f} s")
            elif name in self._used_ns:
                before = self._used_ns[name]
                figures["cpu"] = (cpu_ns - before[0]) / passed_ns * 100
                figures["held"] = (held_ns - before[1]) / passed_ns * 100
            self._pids[name], self._used_ns[name] = pid, (cpu_ns, held_ns)
            found |= {f"{kind}:{name}": value for kind, value in figures.items()}
        self._looked_s = now_s
        return {**found, "pss": pss}

    def metrics(self, now_s: float) -> dict[str, float]:
        """Publish latency since the last call, asyncio tasks, what the feed had to do for slow readers."""
        try:
            text = self._engine.get("/metrics")[1].decode()
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            self.notes.append(f"/metrics did not answer after {now_s:.0f} s: {error}")
            return {}
        latency = histogram(text, PUBLISH)
        window, self._latency = since(self._latency, latency), latency
        found = {"publish:p50": quantile_us(window, 0.5), "publish:p99": quantile_us(window, 0.99)}
        for process, count in by_label(text, TASKS, "process").items():
            found[f"tasks:{process}"] = count
        for name in ("lagged", "aborted"):
            found[name] = plain(text, f"tradeback_feed_{name}_total")
        return found


def plain(text: str, name: str) -> float:
    """A metric, its label sets summed; NaN when there is none."""
    values = [
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith((f"{name} ", f"{name}{{"))
    ]
    return sum(values) if values else nan


def client_values(sample: Mapping[str, Any]) -> dict[str, float]:
    """The columns that the clients' answer gives."""
    found = {
        f"client:{share}:{name}": value
        for name, window in sample["windows"].items()
        for share, value in window.items()
    }
    return found | {name: float(value) for name, value in sample.items() if name != "windows"}
