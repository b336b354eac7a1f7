"""Start-up and memory: seconds to an open port and to ready, and MB, against an empty process.

The engine and the empty process run on all cores, as they would in life. Memory is read when the whole
history has been loaded and what loading took has been given back. In full size that takes one to two minutes:
the history of 500 symbols costs twice the weight that the exchange allows in one minute, and the engine
keeps to the limit. The small size has as many symbols as fit into the first minute.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.alternatives import bare_process
from benchmarks.harness import children, machine
from benchmarks.harness.engine import Engine
from benchmarks.harness.exchange import Exchange
from benchmarks.harness.options import Options
from benchmarks.harness.report import Check, Column, Report, Row
from benchmarks.harness.stats import medians
from benchmarks.harness.trades import symbol_names

NAME = "path_startup"
TITLE = "Start of the process to open port and to ready, s; resident memory, MB"
SYMBOLS_START, SYMBOLS_SMALL, SYMBOLS_FULL = 10, 100, 500
HISTORY_SECONDS_MAX = 300.0
GIVEN_BACK_SECONDS = 1.0
"""From the end of the history until the engine has returned free memory."""
WARM_UP_SUBSCRIBERS = 50
_AS_EVERYBODY = {"EXCHANGE_LINES": "2"}
"""The default, which the harness changes for the other benchmarks."""
BARE, FIRST, WARM = (
    "empty process: uvloop, aiohttp, numba", "tradeback, first ever", "tradeback, kernels cached",
)  # fmt: skip


@dataclass
class _Runs:
    """variant -> figures per repeat."""

    figures: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add(self, variant: str, **figures: float) -> None:
        self.figures.setdefault(variant, []).append(figures)


def _bare(runs: _Runs) -> None:
    start = time.monotonic()
    with subprocess.Popen([sys.executable, bare_process.__file__], stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is None or not process.stdout.readline():
                raise children.ChildError("the empty process did not listen")
            port_open = time.monotonic() - start
            process.stdout.readline()
            runs.add(BARE, port=port_open, ready=time.monotonic() - start,
                     rss=machine.rss_mb(process.pid), all=machine.pss_mb(process.pid))  # fmt: skip
        finally:
            process.kill()


def _start(variant: str, cache: str, runs: _Runs) -> None:
    names = symbol_names(SYMBOLS_START)
    with (
        Exchange(machine.cores()[1], names) as exchange,
        Engine(
            exchange, names, None, alone=False, environment=_AS_EVERYBODY | {"TRADEBACK_CACHE_DIR": cache}
        ) as engine,
    ):
        status, _ = engine.get("/health/live")
        if status != 200:
            runs.wrong.append(f"{variant}: /health/live says {status} after the port was announced")
        ready = engine.wait_ready()
        runs.add(variant, port=engine.port_open_s, ready=ready, **_memory_of(engine))


def _memory_of(engine: Engine) -> dict[str, float]:
    """MB: resident of the engine's process, and of all together with shared pages counted once."""
    family = engine.family()
    return {
        "rss": machine.rss_mb(family["engine"]), "all": sum(machine.pss_mb(pid) for pid in family.values()),
    }  # fmt: skip


def _loaded(symbols: int) -> str:
    return f"tradeback, {symbols} symbols, history loaded"


def _memory(cache: str, symbols: int, subscribers: int, runs: _Runs) -> None:
    names = symbol_names(symbols)
    with (
        Exchange(machine.cores()[1], names) as exchange,
        Engine(
            exchange, names, None, alone=False, environment=_AS_EVERYBODY | {"TRADEBACK_CACHE_DIR": cache}
        ) as engine,
    ):
        ready = engine.wait_ready()
        exchange.wait_streams("trade", len(names))
        if not engine.wait_history(HISTORY_SECONDS_MAX):
            runs.wrong.append(f"the history of {symbols} symbols took over {HISTORY_SECONDS_MAX:.0f} s")
        requests, _ = exchange.do("rest_quiet_s")
        runs.notes.append(
            f"RSS with the whole history of {symbols} symbols loaded: {requests:,} requests, "
            f"{time.monotonic() - engine.started_s:.0f} s after the start."
        )
        time.sleep(GIVEN_BACK_SECONDS)
        memory, pid = _memory_of(engine), engine.family()["engine"]
        exchange.do("subscribe", engine.port, WARM_UP_SUBSCRIBERS, names[:10])
        before = machine.rss_mb(pid)
        held = exchange.do("subscribe", engine.port, subscribers, names[:10])
        after = machine.rss_mb(pid)
        if held != subscribers + WARM_UP_SUBSCRIBERS:
            runs.wrong.append(
                f"{held} subscribers are connected instead of {subscribers + WARM_UP_SUBSCRIBERS}"
            )
        runs.add(
            _loaded(symbols), port=engine.port_open_s, ready=ready, **memory,
            subscriber=(after - before) * 1024 / subscribers,
        )  # fmt: skip


def run(options: Options) -> Report:
    """Measure `repeats` times in turn; every first start has a fresh cache folder."""
    runs, symbols = _Runs(), options.pick(SYMBOLS_SMALL, SYMBOLS_FULL)
    for repeat in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            cache = str(Path(folder) / "cache")
            _bare(runs)
            _start(FIRST, cache, runs)
            _start(WARM, cache, runs)
            if not repeat:  # it takes minutes, and its figures do not vary
                _memory(cache, symbols, options.pick(200, 1_000), runs)
    return _report(runs, symbols)


def _report(runs: _Runs, symbols: int) -> Report:
    columns = [
        Column("port", "port open s", 2), Column("ready", "ready s", 2),
        Column("rss", "engine RSS MB", 0), Column("all", "all processes MB", 0),
        Column("subscriber", "KB per idle subscriber", 1),
    ]  # fmt: skip
    report = Report(NAME, TITLE, columns, notes=list(dict.fromkeys(runs.notes)), wrong=runs.wrong)
    medians_of = {variant: medians(figures) for variant, figures in runs.figures.items()}
    many = medians_of[_loaded(symbols)]
    report.rows += [Row(variant, figures) for variant, figures in medians_of.items()]
    report.checks += [
        Check("port open, s", medians_of[WARM]["port"], "<=", 0.5),
        Check("ready, kernels cached, s", medians_of[WARM]["ready"], "<=", 1.2),
        Check("ready, first ever, s", medians_of[FIRST]["ready"], "<=", 6.0),
        Check(f"RSS of the engine with {symbols} symbols, MB", many["rss"], "<=", 180.0),
        Check("KB per idle subscriber", many["subscriber"], "<=", 16.0),
    ]
    return report
