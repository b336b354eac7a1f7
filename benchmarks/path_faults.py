"""What a client notices of faults: one-way latency while all is well, while single connections are cut, and
while ids that all lines have lost are repaired.

Two lines, 10,000 trades a second on each, one v2 subscriber. The sender writes the time into the trade's
quantity. Calm, cuts and lost ids take turns in one engine, so that a machine that changes its pace does so
for all; the percentiles are of all trades of a kind together. Trades that REST brought have no place among
the latencies; how long their repair took is a column of its own, and every trade must have come once.
"""

import json
import time
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import machine
from benchmarks.harness.broken_exchange import TRADES_MAX, BrokenExchange, Play, Played
from benchmarks.harness.engine import Engine
from benchmarks.harness.kept_frames import KeptFrames, keep_feed
from benchmarks.harness.native import Ints, build
from benchmarks.harness.options import Options
from benchmarks.harness.report import Check, Column, Report, Row
from benchmarks.harness.stats import medians, pooled_us, ratio
from benchmarks.harness.trades import symbol_names
from benchmarks.path_end_to_end import SETTLE_SECONDS, doubt_of

NAME = "path_faults"
TITLE = "Calm, cuts of single connections, ids lost on all lines: one-way latency of one v2 subscriber in us"
SYMBOLS = 10
RATE = 10_000
CUTS_PER_SECOND = 1.0
TURNS = 22
"""How often each kind has its turn in the full size, TURN_SECONDS long: hundreds of cuts."""
TURN_SECONDS = 10.0
LOSSES_PER_SECOND, IDS_PER_LOSS = 1.0, 60
HISTORY_SECONDS_MAX = 20.0
COMPLETE_SECONDS_MAX = 60.0
"""How long the repair of the last gap may take."""
AFTERWARDS_SECONDS = 0.3
"""How long doubles are waited for when everything is there."""
CALM, CUTS, LOST = "calm", "single connections cut", "ids lost on all lines"
RUNS = (CALM, CUTS, LOST)
TARGET = 1.5
SETTINGS = {
    "EXCHANGE_LINES": "2",
    # A connection that is cut again within backoff_max waits longer each time: here all of them are.
    "EXCHANGE_BACKOFF_FIRST": "50ms",
    "EXCHANGE_BACKOFF_MAX": "100ms",
    # So that repair falls into the run also where that is short.
    "EXCHANGE_GAP_AFTER": "250ms",
}


@dataclass(frozen=True)
class Run:
    """One run as the subscriber saw it. `wrong`: what should not be, in words."""

    latency_ns: Ints
    repair_s: NDArray[np.float64]
    lost: int
    doubled: int
    by_rest: int
    """Trades that came by REST though a line was sent them."""
    wrong: list[str]


@dataclass
class Runs:
    """Everything that was measured, by name of the run."""

    latency_ns: dict[str, list[Ints]] = field(default_factory=lambda: defaultdict(list))
    figures: dict[str, list[dict[str, float]]] = field(default_factory=lambda: defaultdict(list))
    totals: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    repair_s: float = 0.0
    """The longest."""
    wrong: list[str] = field(default_factory=list)
    trades: int = 0


class Watch:
    """Collects what one subscriber gets; tells, of a stretch of numbers, how they came."""

    def __init__(self, kept: KeptFrames) -> None:
        self._kept = kept
        self._rows: list[NDArray[np.int64]] = []
        self._strange = 0

    def look(self) -> None:
        """Take what has come."""
        new = self._kept.take()
        self._strange += new.strange
        latency_ns = new.arrived_ns - new.stamp_ns
        self._rows.append(np.stack([new.number, latency_ns, new.repaired.astype(np.int64)], axis=1))

    def missing(self, first: int, count: int) -> int:
        """How many of the trades first.. have not come yet."""
        self.look()
        return count - len(np.unique(self._of(first, count)[:, 0]))

    def _of(self, first: int, count: int) -> NDArray[np.int64]:
        self._rows = [np.concatenate(self._rows)]
        rows = self._rows[0]
        return rows[(rows[:, 0] >= first) & (rows[:, 0] < first + count)]

    def run(self, first: int, count: int, played: Played) -> Run:
        """Judge the trades first.. , and forget them."""
        self.look()
        rows = self._of(first, count)
        times = np.bincount(rows[:, 0] - first, minlength=count)
        repaired = rows[:, 2] != 0
        wrong = []
        if self._strange:
            wrong.append(f"{self._strange} entries that nobody sent")
        self._rows, self._strange = [np.empty((0, 3), np.int64)], 0
        return Run(
            latency_ns=rows[~repaired, 1],
            repair_s=rows[repaired, 1] / 1e9,
            lost=int(np.count_nonzero(times == 0)),
            doubled=int(np.sum(times[times > 1] - 1)),
            by_rest=len(set(rows[repaired, 0].tolist()) - set(played.lost.tolist())),
            wrong=wrong,
        )


def _wait_complete(engine: Engine, watch: Watch, first: int, count: int) -> int:
    """Until every trade has come and every gap is closed; how many gaps are not repaired."""
    deadline = time.monotonic() + COMPLETE_SECONDS_MAX
    while (watch.missing(first, count) or _gaps(engine, "open")) and time.monotonic() < deadline:
        time.sleep(SETTLE_SECONDS)
    time.sleep(AFTERWARDS_SECONDS)
    return _gaps(engine, "open") + _gaps(engine, "unrepairable")


def _gaps(engine: Engine, state: str) -> int:
    """Gaps in a state, as /gaps tells."""
    return len(json.loads(engine.get(f"/api/v1/gaps?limit=5000&state={state}")[1])["gaps"])


def measure(
    exchange: BrokenExchange, engine: Engine, seconds: float, turns: int, seed: int, runs: Runs
) -> None:
    """All of RUNS in turn in one engine, each `seconds` long. Each turn has a subscriber of its own."""
    base_ns, count, first = time.monotonic_ns(), int(RATE * seconds), 0
    assert count * len(RUNS) * turns <= TRADES_MAX
    for turn in range(turns):
        with keep_feed(engine.port, exchange.symbols, base_ns, count * len(RUNS)) as kept:
            watch = Watch(kept)
            for place, name in enumerate(RUNS):
                plan = Play(
                    base_ns, RATE, first, count, (seed * turns + turn) * len(RUNS) + place,
                    cuts_per_s=CUTS_PER_SECOND if name == CUTS else 0.0,
                    losses_per_s=LOSSES_PER_SECOND if name == LOST else 0.0,
                    ids_per_loss=IDS_PER_LOSS,
                )  # fmt: skip
                _play(exchange, engine, watch, name, plan, runs)
                first += count


def _play(exchange: BrokenExchange, engine: Engine, watch: Watch, name: str, plan: Play, runs: Runs) -> None:
    time.sleep(SETTLE_SECONDS)
    held_up, start = machine.held_up_ns(engine.pid), time.monotonic_ns()
    exchange.begin("play", plan)
    played: Played = exchange.end()
    held_up, took = machine.held_up_ns(engine.pid) - held_up, time.monotonic_ns() - start
    unrepaired = _wait_complete(engine, watch, plan.first, plan.count)
    _add(runs, name, watch.run(plan.first, plan.count, played), played, held_up / took * 100)
    if unrepaired:
        runs.wrong.append(f"{name}: {unrepaired} gaps are not repaired")


def _add(runs: Runs, name: str, run: Run, played: Played, held_up: float) -> None:
    runs.latency_ns[name].append(run.latency_ns)
    late = float(np.percentile(played.late_ns, 99)) / 1e3
    runs.figures[name].append({"late": late, "held_up": held_up})
    if len(run.repair_s):
        runs.repair_s = max(runs.repair_s, float(run.repair_s.max()))
    runs.trades += len(run.latency_ns) + len(run.repair_s)
    totals = runs.totals[name]
    totals["broken"] += played.cuts if name == CUTS else len(played.lost)
    totals["cuts_of_trades"] += played.cuts_of_trades
    totals["lost"] += run.lost
    totals["doubled"] += run.doubled
    totals["by_rest"] += run.by_rest
    runs.wrong += [f"{name}: {words}" for words in run.wrong]
    if run.by_rest and name != CUTS:
        runs.wrong.append(f"{name}: {run.by_rest} trades came by REST though a line was sent them")
    if run.lost or run.doubled:
        runs.wrong.append(f"{name}: {run.lost} trades lost, {run.doubled} doubled")


def run(options: Options) -> Report:
    """Measure, `repeats` times, each in an engine of its own. Raises NoCompiler."""
    build()
    server_core, ends_core = machine.cores()
    names, runs = symbol_names(SYMBOLS), Runs()
    seconds, turns = (TURN_SECONDS, TURNS) if options.full else (1.0, 1)
    for seed in range(options.repeats):
        with (
            machine.pinned(ends_core),
            BrokenExchange(ends_core, names) as exchange,
            Engine(exchange, names, server_core, environment=SETTINGS) as engine,
        ):
            engine.wait_ready()
            exchange.wait_streams("trade", 2 * len(names))
            engine.wait_history(HISTORY_SECONDS_MAX)
            measure(exchange, engine, seconds, turns, seed, runs)
    return report_of(runs)


def _figures(runs: Runs, name: str) -> dict[str, float]:
    p50, p99, p999 = pooled_us(runs.latency_ns[name], 50, 99, 99.9)
    figures = {"p50": p50, "p99": p99, "p999": p999, **medians(runs.figures[name])}
    return {**figures, "repair": runs.repair_s} if name == LOST else figures


def report_of(runs: Runs) -> Report:
    """The table: one row per kind of run."""
    report = Report(
        NAME, TITLE,
        [
            Column("p50", "p50 us", 1), Column("p99", "p99 us", 1), Column("p999", "p99.9 us", 1),
            Column("p50_ratio", "p50 / calm", 2), Column("p99_ratio", "p99 / calm", 2),
            Column("broken", "cuts, lost ids"), Column("lost", "lost"), Column("doubled", "doubled"),
            Column("repair", "repaired in s, at most", 2),
            Column("late", "late p99 us", 1), Column("held_up", "held up %", 1),
        ],
        wrong=runs.wrong,
    )  # fmt: skip
    found = {name: _figures(runs, name) for name in RUNS}
    for name, figures in found.items():
        for share in ("p50", "p99"):
            figures[f"{share}_ratio"] = ratio(figures[share], found[CALM][share])
        totals = runs.totals[name]
        counted = {key: float(totals[key]) for key in ("broken", "lost", "doubled")}
        report.rows.append(Row(f"{RATE // 1000}k/s, {name}", {**figures, **counted}))
        if name != CALM:
            doubt = doubt_of(figures, found[CALM])
            report.checks.append(Check(f"{name}, p99 to calm", figures["p99_ratio"], "<=", TARGET, doubt))
    report.notes.append(
        f"{runs.totals[CUTS]['cuts_of_trades']} of the cuts hit a connection with trades, the others one "
        "with quotes or aggregates; the other line was up each time."
    )
    if by_rest := runs.totals[CUTS]["by_rest"]:
        report.notes.append(
            f"{by_rest} trades went down with a cut connection before the engine had read them, sent there "
            "before the other line was up again: REST brought them."
        )
    report.notes.append(
        f"{runs.trades:,} trades received, each compared by number and price. Repaired trades count as "
        "received, not as latency. A hole counts as a gap after 250 ms here."
    )
    return report
