"""History beside the feed: 200 requests/s for 5,000 bars while 10,000 trades/s flow; what both feel of it.

The feed runs calm and with the charts in turn, with the same engine and the same subscriber, so that a
machine that changes its pace does so for both; all percentiles of a repeat are of all trades of a kind
together. Then the same is done with a C relay in the feed's place, while the same engine answers the same
charts: what its tail grows by is the machine's doing.

The engine runs as users have it: with its recorder, which answers for history. That has the core of the ends
and takes what sender and receiver leave, as it would take another core where there is one; these two run at
once when they are woken (`machine.urgent`). Charts ask
/udf/history of ten symbols up to now, so every answer holds the running bar and none can be kept as a whole.
The bars come from the exchange's klines, fetched on demand before.
"""

import time
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from benchmarks.alternatives import c_relay
from benchmarks.harness import machine
from benchmarks.harness.engine import Engine
from benchmarks.harness.exchange import Exchange, Paced
from benchmarks.harness.history_client import Charts, look
from benchmarks.harness.kept_frames import Judged, KeptFrames, keep_feed
from benchmarks.harness.native import Ints, build
from benchmarks.harness.options import Options
from benchmarks.harness.receivers import Receive, Received
from benchmarks.harness.report import Check, Column, Report, Row
from benchmarks.harness.stats import medians, pooled_us, ratio
from benchmarks.harness.trades import symbol_names

NAME = "path_history"
TITLE = "200 requests/s for 5,000 bars beside a feed of 10,000 trades/s; latency of both"
SYMBOLS = 10
BARS = 5_000
REQUESTS_PER_S = 200.0
TRADES_PER_S = 10_000
TURNS, TURN_SECONDS = 6, 4.0
"""How often the feed runs calm and with charts in each repeat of the full size, and for how long."""
SETTLE_SECONDS = 0.1
HISTORY_SECONDS_MAX = 60.0
QUIET_HELD_UP = 3.0
"""The machine is not quiet when the engine waits for its core for more than this share of the time
(percent).
"""
FOREVER_S = 4_000_000_000
CALM, CHARTS = "calm", "with charts"
FEED, RELAY = "feed", "C relay"


@dataclass
class _Runs:
    """Everything that was measured: variant -> figures per repeat."""

    figures: dict[str, list[dict[str, float]]] = field(default_factory=dict)
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


class _Ends(Protocol):
    """Both ends of a variant: the exchange that sends, and the subscriber."""

    def wait(self, plan: Paced) -> Ints:
        """Until the sender is through; how late it was, ns per send."""

    def collect(self, plan: Paced) -> Judged:
        """What has come of it."""


class _FeedEnds:
    """The feed's subscriber keeps all frames, and decodes them afterwards."""

    def __init__(self, exchange: Exchange, kept: KeptFrames) -> None:
        self._exchange = exchange
        self.collect = kept.receive

    def wait(self, plan: Paced) -> Ints:
        """Until the sender is through; how late it was, ns per send."""
        late_ns: Ints = self._exchange.end()
        return late_ns


class _RelayEnds:
    """The relay's subscriber knows when trades arrived, but not when they were sent."""

    def __init__(self, exchange: Exchange, receive: Receive) -> None:
        self._exchange, self._receive = exchange, receive
        self._received: Received | None = None

    def wait(self, plan: Paced) -> Ints:
        """Until the sender is through; how late it was, ns per send."""
        self._received = self._receive(plan)
        late_ns: Ints = self._exchange.end()
        return late_ns

    def collect(self, plan: Paced) -> Judged:
        """What has come of it."""
        assert self._received is not None
        return Judged(self._received.latency_ns, np.zeros(0, np.int64), self._received.wrong)


class _Feed:
    """Sends trades and measures how they arrive, run after run. Times count from `base_ns`."""

    def __init__(
        self, exchange: Exchange, pid: int, ends: _Ends, base_ns: int, seconds: float, runs: _Runs
    ) -> None:
        self._exchange, self._pid, self._ends, self._runs = exchange, pid, ends, runs
        self._plan = Paced(base_ns, TRADES_PER_S, 0, 0, 1, catch_up=False)
        self._figures: dict[str, float] = {}
        self._count = int(TRADES_PER_S * seconds)
        self._first = 0

    def play(self) -> None:
        """Send the trades of a run."""
        plan = Paced(self._plan.base_ns, TRADES_PER_S, self._first, self._count, 1, catch_up=False)
        time.sleep(SETTLE_SECONDS)
        cpu, held_up, start = machine.cpu_ns(self._pid), machine.held_up_ns(self._pid), time.monotonic_ns()
        self._exchange.begin("paced", plan)
        late_ns = self._ends.wait(plan)
        elapsed_ns = time.monotonic_ns() - start
        cpu, held_up = machine.cpu_ns(self._pid) - cpu, machine.held_up_ns(self._pid) - held_up
        self._plan = plan
        self._figures = {
            "late": float(np.percentile(late_ns, 99)) / 1e3,
            "cpu": cpu / elapsed_ns * 100,
            "held_up": held_up / elapsed_ns * 100,
        }

    def look(self, variant: str) -> tuple[Judged, dict[str, float]]:
        """What came of it, and how it went beside. Takes a while, and the subscriber's core."""
        received = self._ends.collect(self._plan)
        self._first += self._count
        self._runs.trades += len(received.latency_ns)
        if len(received.latency_ns) != self._count or received.wrong:
            got = f"{len(received.latency_ns)} of {self._count} trades, {received.wrong} wrong"
            self._runs.wrong.append(f"{variant}: {got}")
        return received, self._figures


def _measure(name: str, feed: _Feed, charts: Charts, seconds: float, turns: int, runs: _Runs) -> None:
    """Calm and with charts in turn; one row of figures each."""
    received: dict[str, list[Judged]] = {CALM: [], CHARTS: []}
    beside: dict[str, list[dict[str, float]]] = {CALM: [], CHARTS: []}
    asked_ns: list[Ints] = []
    for variant in (CALM, CHARTS) * turns:
        if variant == CHARTS:
            charts.begin(REQUESTS_PER_S, int(REQUESTS_PER_S * (seconds + 2 * SETTLE_SECONDS)))
        feed.play()
        if variant == CHARTS:
            asked = charts.end()
            asked_ns.append(asked.latency_ns)
            runs.answers += len(asked.latency_ns)
            runs.answer_bytes += asked.answer_bytes
            runs.wrong += asked.wrong
        judged, figures = feed.look(variant)
        received[variant].append(judged)
        beside[variant].append(figures)
    calm, busy = (_figures(received[each], beside[each]) for each in (CALM, CHARTS))
    busy |= {f"{p99}_ratio": ratio(busy[p99], calm[p99]) for p99 in ("p99", "s99") if p99 in busy}
    h50, h99 = pooled_us(asked_ns, 50, 99)
    busy |= {"h50": h50 / 1e3, "h99": h99 / 1e3}
    runs.figures.setdefault(f"{name}, {CALM}", []).append(calm)
    runs.figures.setdefault(f"{name}, {CHARTS}", []).append(busy)


def _figures(received: list[Judged], beside: list[dict[str, float]]) -> dict[str, float]:
    figures = medians(beside)
    figures["p50"], figures["p99"] = pooled_us([each.latency_ns for each in received], 50, 99)
    sent_ns = [each.sent_ns for each in received if len(each.sent_ns)]
    if sent_ns:
        figures["s50"], figures["s99"], figures["longest"] = pooled_us(sent_ns, 50, 99, 100)
    return figures


def run(options: Options) -> Report:
    """Measure, `repeats` times with an engine each. Raises NoCompiler."""
    build()
    server_core, ends_core = machine.cores()
    names, runs = symbol_names(SYMBOLS), _Runs()
    seconds, turns = (TURN_SECONDS, TURNS) if options.full else (2.0, 1)
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
            with Charts(ends_core, engine.port, [target_of(name) for name in names], BARS) as charts:
                charts.ask(REQUESTS_PER_S, 50)
                base_ns, trades = time.monotonic_ns(), int(2 * turns * TRADES_PER_S * seconds)
                with keep_feed(engine.port, exchange.symbols, base_ns, trades) as kept:
                    feed = _Feed(
                        exchange, family["engine"], _FeedEnds(exchange, kept), base_ns, seconds, runs
                    )
                    _measure(FEED, feed, charts, seconds, turns, runs)
                # The newest line gets the trades: now the relay, while the same engine answers for history.
                with c_relay.relayed(exchange, server_core) as (pid, receive):
                    feed = _Feed(exchange, pid, _RelayEnds(exchange, receive), base_ns, seconds, runs)
                    _measure(RELAY, feed, charts, seconds, turns, runs)
    return _report(runs)


def _report(runs: _Runs) -> Report:
    report = Report(
        NAME, TITLE,
        [
            Column("s50", "until sent p50 us", 1), Column("s99", "p99 us", 1),
            Column("s99_ratio", "p99 / calm", 2), Column("longest", "longest us"),
            Column("p50", "until arrived p50 us", 1), Column("p99", "p99 us", 1),
            Column("p99_ratio", "p99 / calm", 2),
            Column("h50", "history p50 ms", 2), Column("h99", "history p99 ms", 2),
            Column("cpu", "engine CPU %", 1), Column("late", "late p99 us", 1),
            Column("held_up", "held up %", 1),
        ],
        wrong=runs.wrong,
    )  # fmt: skip
    figures = {name: medians(found) for name, found in runs.figures.items()}
    report.rows += [Row(name, found) for name, found in figures.items()]
    busy = figures[f"{FEED}, {CHARTS}"]
    held_up = max(found["held_up"] for found in figures.values())
    doubt = f"not quiet: core taken by others for {held_up:.1f} %" if held_up > QUIET_HELD_UP else ""
    report.checks += [
        Check("history p99 ms", busy["h99"], "<=", 20.0, doubt),
        Check("feed p99 to calm, until sent", busy["s99_ratio"], "<=", 1.3, doubt),
        Check("feed p99 to calm, until arrived", busy["p99_ratio"], "<=", 1.3, doubt),
    ]
    report.notes.append(
        "Until sent: from the exchange's send to the engine's, which v2 frames tell. Sender and receiver "
        "share a core with charts and recorder, and run before these. The C relay, which answers for "
        "nothing, shows what of the tail is the machine's."
    )
    report.notes.append(
        f"{runs.answers:,} answers of {BARS:,} bars, {runs.answer_bytes / max(1, runs.answers) / 1e3:.0f} kB "
        "each; one in ten looked at in full."
    )
    report.notes.append(f"{runs.trades:,} trades received, each compared by number, order and price.")
    return report
