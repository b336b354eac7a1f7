"""End to end as users run it: wire v2, every trade on two lines of which the first wins, against a C relay.

The relay has one line and no second copy to read and drop. All three are up and take turns, a second each, in
an order that turns round: the machine changes its pace by the second, and so it does that for all. Whose turn
it is has the core alone; the others are stopped. (Not less than a second: all that the engine does besides,
now and then, is in every run.) As in `path_end_to_end` the best of all runs counts. The subscriber's frames
are kept in C as they come and decoded afterwards.

Every other send begins with the second line, so that each is first equally often; the other line has it at a
random moment before the next send, as two hosts' lines have. The sender waits by looking at the clock and
gives way to the subscriber, which has the same core: with timers the two were in each other's way, most with
two lines. The version with one line shows what the second costs.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np

from benchmarks.alternatives import c_relay
from benchmarks.harness import machine
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
    SYMBOLS,
    doubt_of,
)

NAME = "path_lines"
TITLE = "Exchange socket to subscriber socket, wire v2, one and two lines; one-way latency in us"
ONE_LINE, TWO_LINES = "tradeback, v2, one line", "tradeback, v2, two lines"
VARIANTS = (RELAY, ONE_LINE, TWO_LINES)
TURNS = 10
"""How often each is measured at every load before it is started anew."""
SETTLE_SECONDS = 0.3
"""After it goes on an engine first does what was due meanwhile."""
TARGETS = (("p50", 1.2), ("p99", 1.5))
LAGS = (0.1, 0.9)
"""How late the other line may be, as shares of the interval: not while the first send is still at work."""

Receive = Callable[[Paced], tuple[Ints, int, Played]]
"""The trades of a run: latencies in ns, how many were wrong or doubled, and what the sender says."""


@dataclass
class _Path:
    """What is measured, with an exchange of its own."""

    variant: str
    exchange: BrokenExchange
    pid: int
    receive: Receive
    awake: bool
    """Whether the sender may look at the clock: not where that would take the core of what is measured."""
    sent: int = 0
    """Trades so far."""


@dataclass
class _Runs:
    """Everything that was measured: (variant, load) -> figures per run."""

    figures: dict[tuple[str, int], list[dict[str, float]]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    trades: int = 0

    def add(
        self, variant: str, rate: int, count: int, latency: Ints, wrong: int, figures: dict[str, float]
    ) -> None:
        self.figures.setdefault((variant, rate), []).append(figures)
        self.trades += len(latency)
        if len(latency) != count or wrong:
            self.wrong.append(f"{variant} at {rate:,}/s: {len(latency)} of {count} trades, {wrong} wrong")


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


def _measure(path: _Path, rate: int, burst: int, count: int, base_ns: int, runs: _Runs) -> None:
    """One run of one of them, while the others stand still."""
    os.kill(path.pid, signal.SIGCONT)
    time.sleep(SETTLE_SECONDS)
    cpu, held_up, start = machine.cpu_ns(path.pid), machine.held_up_ns(path.pid), time.monotonic_ns()
    lag_s = (LAGS[0] * burst / rate, LAGS[1] * burst / rate)
    play = Play(base_ns, rate, path.sent, count, path.sent, burst=burst, lag_s=lag_s, awake=path.awake)
    path.exchange.begin("play", play)
    latency, wrong, played = path.receive(Paced(base_ns, rate, path.sent, count, burst))
    p50, p99 = percentiles_us(latency, 50, 99)
    figures = {
        "p50": p50, "p99": p99, "late": float(np.percentile(played.late_ns, 99)) / 1e3,
        "cpu": (machine.cpu_ns(path.pid) - cpu) / count / 1e3,
        "held_up": (machine.held_up_ns(path.pid) - held_up) / (time.monotonic_ns() - start) * 100,
    }  # fmt: skip
    os.kill(path.pid, signal.SIGSTOP)
    path.sent += count
    runs.add(path.variant, rate, count, latency, wrong, figures)


def _take_turns(options: Options, runs: _Runs) -> None:
    server_core, ends_core = machine.cores()
    names, turns, seconds = symbol_names(SYMBOLS), options.pick(1, TURNS), 1.0 if options.full else 0.5
    trades = turns * sum(int(rate * seconds) for rate, _ in LOADS)
    with ExitStack() as opened:
        opened.enter_context(machine.pinned(ends_core))
        base_ns, paths = time.monotonic_ns(), []
        for variant in VARIANTS:
            exchange = opened.enter_context(BrokenExchange(ends_core, names))
            path = (
                _relay(exchange, server_core)
                if variant == RELAY
                else _engine(exchange, server_core, 1 + (variant == TWO_LINES), base_ns, trades)
            )
            pid, receive = opened.enter_context(path)
            os.kill(pid, signal.SIGSTOP)
            opened.callback(os.kill, pid, signal.SIGCONT)
            paths.append(_Path(variant, exchange, pid, receive, awake=server_core != ends_core))
        for turn in range(turns):
            for rate, burst in LOADS:
                for path_now in paths if turn % 2 == 0 else reversed(paths):
                    _measure(path_now, rate, burst, int(rate * seconds) // burst * burst, base_ns, runs)


def run(options: Options) -> Report:
    """Measure all three, TURNS times in turn, `repeats` times with fresh processes. Raises NoCompiler."""
    build()
    runs = _Runs()
    for _ in range(options.repeats):
        _take_turns(options, runs)
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
        f"The best of {len(runs.figures[RELAY, LOADS[0][0]])} runs each, in turn. "
        f"{runs.trades:,} trades received, each compared by number and price; none came by REST. "
        "With two lines the engine reads every trade twice."
    )
    return report
