"""History beside the feed: 200 requests/s for 5,000 bars while 10,000 trades/s flow; what both feel of it.

In each repeat the feed runs calm, then with the charts, then calm again, with the same engine and the same
subscriber. The ratio is to the better of the two calm runs around it. The engine runs as users have it:
with its recorder, which answers for history. That has the core of the ends and takes what sender and
receiver leave, as it would take another core where there is one. Charts ask /udf/history of ten symbols up
to now, so every answer holds the running bar and none can be kept as a whole. The bars come from the
exchange's klines, fetched on demand before.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.harness import machine
from benchmarks.harness.engine import Engine
from benchmarks.harness.exchange import Exchange, Paced
from benchmarks.harness.history_client import Charts, look
from benchmarks.harness.native import build
from benchmarks.harness.options import Options
from benchmarks.harness.receivers import Received, receive_feed
from benchmarks.harness.report import Check, Column, Report, Row
from benchmarks.harness.stats import medians, percentiles_us, ratio
from benchmarks.harness.trades import symbol_names

NAME = "path_history"
TITLE = "200 requests/s for 5,000 bars beside a feed of 10,000 trades/s; latency of both"
SYMBOLS = 10
BARS = 5_000
REQUESTS_PER_S = 200.0
TRADES_PER_S = 10_000
SETTLE_SECONDS = 0.1
HISTORY_SECONDS_MAX = 60.0
QUIET_HELD_UP = 3.0
"""The machine is not quiet when the engine waits for its core for more than this share of the time
(percent).
"""
LATE_TIMES_MAX = 2.0
"""Recorder and charts run as SCHED_IDLE, but a kernel without preemption lets them finish each system call,
and an answer is 240 kB: when the sender wakes up this many times later than calm in one of a hundred cases,
the receiver does so too, and the ratio is not the engine's.
"""
FOREVER_S = 4_000_000_000
CALM, CHARTS = "calm", "with charts"


@dataclass
class _Runs:
    """Everything that was measured: variant -> figures per repeat."""

    figures: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    ratios: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    answers: int = 0
    answer_bytes: int = 0
    trades: int = 0


def target_of(symbol: str) -> str:
    """What a chart asks for."""
    return f"/udf/history?symbol={symbol}&resolution=1&from={FOREVER_S - 60}&to={FOREVER_S}&countback={BARS}"


def _load_history(engine: Engine, names: list[str]) -> None:
    """Have all bars in the store, as charts would by looking once."""
    deadline = time.monotonic() + HISTORY_SECONDS_MAX
    for name in names:
        while True:
            status, body = engine.get(target_of(name), timeout_s=30.0)
            said = look(b"HTTP/1.1 %d x\r\n\r\n" % status + body, BARS)
            if not said:
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"the bars of {name} do not come: {said}")


class _Feed:
    """Sends trades and measures how they arrive, run after run."""

    def __init__(
        self, exchange: Exchange, pid: int, receive: Callable[[Paced], Received], seconds: float, runs: _Runs
    ) -> None:
        self._exchange, self._pid, self._receive, self._runs = exchange, pid, receive, runs
        self._count = int(TRADES_PER_S * seconds)
        self._first = 0

    def run(self, variant: str) -> dict[str, float]:
        """One run; its figures."""
        plan = Paced(time.monotonic_ns(), TRADES_PER_S, self._first, self._count, 1)
        time.sleep(SETTLE_SECONDS)
        cpu, held_up, start = machine.cpu_ns(self._pid), machine.held_up_ns(self._pid), time.monotonic_ns()
        self._exchange.begin("paced", plan)
        received = self._receive(plan)
        late = self._exchange.end()
        elapsed_ns = time.monotonic_ns() - start
        self._first += self._count
        self._runs.trades += len(received.latency_ns)
        if len(received.latency_ns) != self._count or received.wrong:
            got = f"{len(received.latency_ns)} of {self._count} trades, {received.wrong} wrong"
            self._runs.wrong.append(f"{variant}: {got}")
        p50, p99 = percentiles_us(received.latency_ns, 50, 99)
        return {
            "p50": p50,
            "p99": p99,
            "late": float(np.percentile(late, 99)) / 1e3,
            "cpu": (machine.cpu_ns(self._pid) - cpu) / elapsed_ns * 100,
            "held_up": (machine.held_up_ns(self._pid) - held_up) / elapsed_ns * 100,
        }


def _measure(feed: _Feed, charts: Charts, seconds: float, runs: _Runs) -> None:
    before = feed.run(CALM)
    charts.begin(REQUESTS_PER_S, int(REQUESTS_PER_S * (seconds + 2 * SETTLE_SECONDS)))
    busy = feed.run(CHARTS)
    asked = charts.end()
    after = feed.run(CALM)
    h50, h99 = percentiles_us(asked.latency_ns, 50, 99)
    runs.answers += len(asked.latency_ns)
    runs.answer_bytes += asked.answer_bytes
    runs.wrong += asked.wrong
    runs.ratios.append(ratio(busy["p99"], min(before["p99"], after["p99"])))
    runs.figures.setdefault(CALM, []).extend([before, after])
    busy |= {"h50": h50 / 1e3, "h99": h99 / 1e3, "ratio": runs.ratios[-1]}
    runs.figures.setdefault(CHARTS, []).append(busy)


def run(options: Options) -> Report:
    """Measure, `repeats` times with an engine each. Raises NoCompiler."""
    build()
    server_core, ends_core = machine.cores()
    names, runs = symbol_names(SYMBOLS), _Runs()
    seconds = 4.0 if options.full else 2.0
    for _ in range(options.repeats):
        with (
            machine.pinned(ends_core),
            Exchange(ends_core, names) as exchange,
            Engine(
                exchange, exchange.symbols, server_core, alone=False,
                environment={"LIMIT_HISTORY_PER_SECOND": "0"},
            ) as engine,
        ):  # fmt: skip
            engine.wait_ready()
            exchange.wait_streams("trade", len(exchange.symbols))
            engine.wait_history(HISTORY_SECONDS_MAX)
            family = engine.family()
            machine.stand_back(family["recorder"], ends_core)
            _load_history(engine, exchange.symbols)
            with (
                receive_feed(engine.port, exchange.symbols) as receive,
                Charts(ends_core, engine.port, [target_of(name) for name in names], BARS) as charts,
            ):
                charts.ask(REQUESTS_PER_S, 50)
                feed = _Feed(exchange, family["engine"], receive, seconds, runs)
                _measure(feed, charts, seconds, runs)
    return _report(runs)


def _report(runs: _Runs) -> Report:
    report = Report(
        NAME, TITLE,
        [
            Column("p50", "feed p50 us", 1), Column("p99", "feed p99 us", 1),
            Column("ratio", "p99 / calm", 2),
            Column("h50", "history p50 ms", 2), Column("h99", "history p99 ms", 2),
            Column("cpu", "engine CPU %", 1), Column("late", "late p99 us", 1),
            Column("held_up", "held up %", 1),
        ],
        wrong=runs.wrong,
    )  # fmt: skip
    for variant in (CALM, CHARTS):
        report.rows.append(Row(variant, medians(runs.figures[variant])))
    busy, calm = medians(runs.figures[CHARTS]), medians(runs.figures[CALM])
    held_up = max(busy["held_up"], calm["held_up"])
    doubt = f"not quiet: core taken by others for {held_up:.1f} %" if held_up > QUIET_HELD_UP else ""
    shared = ""
    if busy["late"] > LATE_TIMES_MAX * calm["late"]:
        shared = (
            f"the ends' core is shared: the sender itself is late by {busy['late']:,.0f} us, "
            f"calm by {calm['late']:,.0f}, and the receiver like it"
        )
    report.checks += [
        Check("history p99 ms", busy["h99"], "<=", 20.0, doubt),
        Check("feed p99 to the calm run", busy["ratio"], "<=", 1.3, doubt or shared),
    ]
    report.notes.append(
        f"{runs.answers:,} answers of {BARS:,} bars, {runs.answer_bytes / max(1, runs.answers) / 1e3:.0f} kB "
        "each; one in ten looked at in full."
    )
    report.notes.append(f"{runs.trades:,} trades received, each compared by number, order and price.")
    return report
