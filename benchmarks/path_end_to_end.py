"""End to end: exchange socket -> decode -> tape on disk -> subscriber socket, against a C relay.

The relay is three processes too: sender, relay, receiver. The sender writes the time into the trade's
quantity, the subscriber finds it in the v1 entry. Sender and receiver are the same C code for the engine
and for the relay; relay and engine have the same core.

The relay comes in two kinds, like the engine: one sleeps in recv, one spins. All ratios and targets are to
the one that sleeps; the notes say what spinning alone does to the relay, on the machine it ran on.

Every figure is the best of all runs. A virtual machine has two ways to run the same code, by chance and for
seconds: its cores poll for a while before they halt, or they halt at once, and a wake-up then costs 10 us
more. Medians of a few runs compare one way of one side with the other way of the other side.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from benchmarks.alternatives.c_relay import relayed
from benchmarks.harness import machine
from benchmarks.harness.engine import Engine
from benchmarks.harness.exchange import Exchange, Paced
from benchmarks.harness.native import build
from benchmarks.harness.options import Options
from benchmarks.harness.receivers import Receive, Received, receive_feed
from benchmarks.harness.report import Check, Column, Report, Row
from benchmarks.harness.stats import best, percentiles_us, ratio
from benchmarks.harness.trades import symbol_names

NAME = "path_end_to_end"
TITLE = "Exchange socket to subscriber socket, tape on disk, one subscriber; one-way latency in us"
SYMBOLS = 10
HISTORY_SECONDS_MAX = 20.0
LOADS = ((1_000, 1), (10_000, 1), (50_000, 5))
"""(trades per second, trades per send)."""
TURNS = 4
"""How often each process is measured at every load."""
SETTLE_SECONDS = 0.1
QUIET_LATE_US, QUIET_HELD_UP = 250.0, 3.0
"""The machine is not quiet when the sender wakes up later than this in one of a hundred cases, or when
what is measured has to wait for its core for more than this share of the time (percent)."""
COLUMNS = (
    Column("p50", "p50 us", 1), Column("p99", "p99 us", 1),
    Column("p50_ratio", "p50 / C", 2), Column("p99_ratio", "p99 / C", 2),
    Column("cpu", "CPU us/trade", 1), Column("late", "late p99 us", 1), Column("held_up", "held up %", 1),
)  # fmt: skip
RELAY, SPINNING_RELAY, SPIN = "C relay", "C relay, spinning", "tradeback --spin"
VARIANTS = (RELAY, SPINNING_RELAY, "tradeback", SPIN)


@dataclass
class _Runs:
    """Everything that was measured: (variant, load) -> figures per repeat."""

    figures: dict[tuple[str, int], list[dict[str, float]]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    trades: int = 0

    def add(self, variant: str, rate: int, count: int, received: Received, beside: dict[str, float]) -> None:
        p50, p99 = percentiles_us(received.latency_ns, 50, 99)
        self.trades += len(received.latency_ns)
        self.figures.setdefault((variant, rate), []).append({"p50": p50, "p99": p99, **beside})
        if len(received.latency_ns) != count or received.wrong:
            got = f"{len(received.latency_ns)} of {count} trades, {received.wrong} wrong"
            self.wrong.append(f"{variant} at {rate:,}/s: {got}")


@contextmanager
def _engine(exchange: Exchange, core: int, *, spin: bool) -> Iterator[tuple[int, Receive]]:
    with Engine(exchange, exchange.symbols, core, spin=spin) as engine:
        engine.wait_ready()
        exchange.wait_streams("trade", len(exchange.symbols))
        engine.wait_history(HISTORY_SECONDS_MAX)
        with receive_feed(engine.port, exchange.symbols) as receive:
            yield engine.pid, receive


def _measure(
    exchange: Exchange,
    variant: str,
    pid: int,
    receive: Receive,
    seconds: float,
    turns: int,
    runs: _Runs,
) -> None:
    first = 0
    for rate, burst in LOADS * turns:
        count = int(rate * seconds) // burst * burst
        plan = Paced(time.monotonic_ns(), rate, first, count, burst)
        time.sleep(SETTLE_SECONDS)
        cpu, held_up, start = machine.cpu_ns(pid), machine.held_up_ns(pid), time.monotonic_ns()
        exchange.begin("paced", plan)
        received = receive(plan)
        late = exchange.end()
        beside = {
            "late": float(np.percentile(late, 99)) / 1e3,
            "cpu": (machine.cpu_ns(pid) - cpu) / count / 1e3,
            "held_up": (machine.held_up_ns(pid) - held_up) / (time.monotonic_ns() - start) * 100,
        }
        runs.add(variant, rate, count, received, beside)
        first += count


def run(options: Options) -> Report:
    """Measure all four, `repeats` times in turn, each time TURNS times. Raises NoCompiler."""
    build()
    server_core, ends_core = machine.cores()
    names, runs, seconds = (
        symbol_names(SYMBOLS),
        _Runs(),
        1.0 if options.full else 0.5,
    )
    for _ in range(options.repeats):
        for variant in VARIANTS:
            with machine.pinned(ends_core), Exchange(ends_core, names) as exchange:
                opened = relayed if variant in (RELAY, SPINNING_RELAY) else _engine
                with opened(exchange, server_core, spin=variant in (SPINNING_RELAY, SPIN)) as (pid, receive):
                    _measure(exchange, variant, pid, receive, seconds, options.pick(1, TURNS), runs)
    return _report(runs)


def _report(runs: _Runs) -> Report:
    report = Report(
        NAME, TITLE,
        list(COLUMNS),
        wrong=runs.wrong,
    )  # fmt: skip
    for rate, burst in LOADS:
        base = best(runs.figures[RELAY, rate])
        for variant in VARIANTS:
            figures = best(runs.figures[variant, rate])
            for share in ("p50", "p99"):
                figures[f"{share}_ratio"] = ratio(figures[share], base[share])
            report.rows.append(Row(f"{rate // 1000}k/s ({burst} per send) {variant}", figures))
            if variant not in (RELAY, SPINNING_RELAY):
                report.checks += _checks(f"{variant} at {rate // 1000}k/s", figures, base)
    report.notes.append(_spinning(runs))
    report.notes.append(
        "late: how late the sender began, against its schedule; held up: time in which others had the core."
    )
    report.notes.append(f"{runs.trades:,} trades received, each compared by number, order and price.")
    return report


def _spinning(runs: _Runs) -> str:
    """What spinning does to the relay, and how tradeback spinning stands to that."""
    relay, engine = [], []
    for rate, _ in LOADS:
        base, spun, ours = (
            best(runs.figures[variant, rate])["p50"] for variant in (RELAY, SPINNING_RELAY, SPIN)
        )
        relay.append(f"{ratio(spun, base):.2f}")
        engine.append(f"{ratio(ours, spun):.2f}")
    loads = ", ".join(f"{rate // 1000}k/s" for rate, _ in LOADS)
    return (
        f"At {loads} the C relay that spins has {', '.join(relay)} times the p50 of the one that sleeps; "
        f"tradeback --spin has {', '.join(engine)} times the p50 of the relay that spins."
    )


def _checks(load: str, figures: dict[str, float], base: dict[str, float]) -> list[Check]:
    doubt = doubt_of(figures, base)
    p50 = 0.8 if "--spin" in load else 1.2
    checks = [Check(f"{load}, p50 to C relay", figures["p50_ratio"], "<=", p50, doubt)]
    if "--spin" not in load:
        checks.append(Check(f"{load}, p99 to C relay", figures["p99_ratio"], "<=", 1.5, doubt))
    return checks


def doubt_of(figures: dict[str, float], base: dict[str, float]) -> str:
    """Why a ratio of these two means little: the machine was not quiet. Empty when it was."""
    late_us, held_up = (max(figures[name], base[name]) for name in ("late", "held_up"))
    if late_us > QUIET_LATE_US or held_up > QUIET_HELD_UP:
        return f"not quiet: sender late by {late_us:,.0f} us, core taken by others for {held_up:.1f} %"
    return ""
