"""End to end as users run it: wire v2, every trade on two lines of which the first wins, against a C relay.

The relay has one line and no second copy to read and drop. The engine has one process, as in
`path_end_to_end`; sender, loads and way of comparing (the best of all runs) are the same, too. The
subscriber's frames are kept in C as they come and decoded afterwards. Every other send begins with the second
line, so that each is first equally often; the other line has it later, at a random moment before the next
send, as two hosts' lines have. (Not at a fixed one: half an interval after the first send is when a trade
reaches the subscriber on a machine that wakes a core in 20 us; there its core was always taken by the second
send.) The core of both ends is kept awake (`harness.awake`), for the relay, too. The version with one line
shows what the second costs.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from benchmarks.alternatives import c_relay
from benchmarks.harness import machine
from benchmarks.harness.awake import awake
from benchmarks.harness.broken_exchange import BrokenExchange, Play, Played
from benchmarks.harness.engine import Engine
from benchmarks.harness.exchange import Paced
from benchmarks.harness.kept_frames import keep_feed
from benchmarks.harness.native import Ints, build
from benchmarks.harness.options import Options
from benchmarks.harness.report import Check, Report, Row
from benchmarks.harness.stats import best, percentiles_us, ratio
from benchmarks.harness.trades import symbol_names
from benchmarks.path_end_to_end import (
    COLUMNS,
    HISTORY_SECONDS_MAX,
    LOADS,
    RELAY,
    SETTLE_SECONDS,
    SYMBOLS,
    TURNS,
    doubt_of,
)

NAME = "path_lines"
TITLE = "Exchange socket to subscriber socket, wire v2, one and two lines; one-way latency in us"
ONE_LINE, TWO_LINES = "tradeback, v2, one line", "tradeback, v2, two lines"
VARIANTS = (RELAY, ONE_LINE, TWO_LINES)
TARGETS = (("p50", 1.2), ("p99", 1.5))
LAGS = (0.1, 0.9)
"""How late the other line may be, as shares of the interval: not while the first send is still at work."""

Receive = Callable[[Paced], tuple[Ints, int, Played]]
"""The trades of a run: latencies in ns, how many were wrong or doubled, and what the sender says."""


@dataclass
class _Runs:
    """Everything that was measured: (variant, load) -> figures per run."""

    figures: dict[tuple[str, int], list[dict[str, float]]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    trades: int = 0


@contextmanager
def _relay(exchange: BrokenExchange, core: int) -> Iterator[tuple[int, Receive]]:
    with c_relay.relayed(exchange, core) as (pid, receive):

        def relayed(plan: Paced) -> tuple[Ints, int, Played]:
            received = receive(plan)
            return received.latency_ns, received.wrong, exchange.end()

        yield pid, relayed


@contextmanager
def _engine(
    exchange: BrokenExchange, core: int, lines: int, base_ns: int, trades_max: int
) -> Iterator[tuple[int, Receive]]:
    with Engine(exchange, exchange.symbols, core, environment={"EXCHANGE_LINES": str(lines)}) as engine:
        engine.wait_ready()
        exchange.wait_streams("trade", lines * len(exchange.symbols))
        engine.wait_history(HISTORY_SECONDS_MAX)
        with keep_feed(engine.port, exchange.symbols, base_ns, trades_max) as kept:

            def receive(plan: Paced) -> tuple[Ints, int, Played]:
                played: Played = exchange.end()  # decoding meanwhile would take the sender's core
                judged = kept.receive(plan)
                return judged.latency_ns, judged.wrong, played

            yield engine.pid, receive


def _measure(
    exchange: BrokenExchange,
    variant: str,
    pid: int,
    receive: Receive,
    base_ns: int,
    options: Options,
    runs: _Runs,
) -> None:
    first, seconds = 0, _seconds(options)
    for rate, burst in LOADS * _turns(options):
        count = int(rate * seconds) // burst * burst
        time.sleep(SETTLE_SECONDS)
        cpu, held_up, start = machine.cpu_ns(pid), machine.held_up_ns(pid), time.monotonic_ns()
        lag_s = (LAGS[0] * burst / rate, LAGS[1] * burst / rate)
        exchange.begin("play", Play(base_ns, rate, first, count, first, burst=burst, lag_s=lag_s))
        latency, wrong, played = receive(Paced(base_ns, rate, first, count, burst))
        p50, p99 = percentiles_us(latency, 50, 99)
        figures = {
            "p50": p50, "p99": p99, "late": float(np.percentile(played.late_ns, 99)) / 1e3,
            "cpu": (machine.cpu_ns(pid) - cpu) / count / 1e3,
            "held_up": (machine.held_up_ns(pid) - held_up) / (time.monotonic_ns() - start) * 100,
        }  # fmt: skip
        runs.figures.setdefault((variant, rate), []).append(figures)
        runs.trades += len(latency)
        if len(latency) != count or wrong:
            runs.wrong.append(f"{variant} at {rate:,}/s: {len(latency)} of {count} trades, {wrong} wrong")
        first += count


def _seconds(options: Options) -> float:
    return 1.0 if options.full else 0.5


def _turns(options: Options) -> int:
    return options.pick(1, TURNS)


def run(options: Options) -> Report:
    """Measure all three, `repeats` times in turn, each time TURNS times. Raises NoCompiler."""
    build()
    server_core, ends_core = machine.cores()
    names, runs = symbol_names(SYMBOLS), _Runs()
    trades = sum(int(rate * _seconds(options)) for rate, _ in LOADS) * _turns(options)
    for _ in range(options.repeats):
        for variant in VARIANTS:
            with awake(ends_core), machine.pinned(ends_core), BrokenExchange(ends_core, names) as exchange:
                base_ns = time.monotonic_ns()
                opened = (
                    _relay(exchange, server_core)
                    if variant == RELAY
                    else _engine(exchange, server_core, 1 + (variant == TWO_LINES), base_ns, trades)
                )
                with opened as (pid, receive):
                    _measure(exchange, variant, pid, receive, base_ns, options, runs)
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
            for share, target in TARGETS:
                figures[f"{share}_ratio"] = ratio(figures[share], base[share])
                if variant == TWO_LINES:
                    words = f"{variant} at {rate // 1000}k/s, {share} to C relay"
                    report.checks.append(
                        Check(words, figures[f"{share}_ratio"], "<=", target, doubt_of(figures, base))
                    )
            report.rows.append(Row(f"{rate // 1000}k/s ({burst} per send) {variant}", figures))
    report.notes.append(
        f"{runs.trades:,} trades received, each compared by number and price; none came by REST. "
        "With two lines the engine reads every trade twice."
    )
    return report
