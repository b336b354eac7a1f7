"""Ingest through a real socket: frames of 500 symbols as fast as they are taken.

The mix is bookTicker, trade, aggTrade 6:2:2. The exchange blasts on one core, what is measured reads on
the other. Ids rise without holes, so every frame is news: nothing is won by dropping duplicates.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from benchmarks.alternatives import ingest_picows, ingest_raw
from benchmarks.harness import certificate, intake, machine
from benchmarks.harness.children import Child
from benchmarks.harness.engine import Engine
from benchmarks.harness.exchange import Exchange
from benchmarks.harness.ingest_child import Snapshot
from benchmarks.harness.market import Tally
from benchmarks.harness.native import build
from benchmarks.harness.options import Options
from benchmarks.harness.report import Check, Column, Report, Row
from benchmarks.harness.stats import medians, ratio
from benchmarks.harness.tape_files import rows_written, sums
from benchmarks.harness.trades import FIRST_ID, symbol_names

NAME = "path_ingest"
TITLE = "Messages per second and core through a real socket, 500 symbols, combined streams"
SYMBOLS = 500
POOL_FRAMES_SMALL, POOL_FRAMES_FULL = 5_000, 20_000
WARM_UP_SECONDS = 0.3
DRAIN_SECONDS_MAX = 10.0
BUSY_PERCENT_MIN = 95.0
"""Below this the rate is not that of a whole core, and decides nothing."""
FIRST_FRAMES_ID = FIRST_ID - 1
"""Id of the frame that each line is sent at first, before the blast."""

CEILING, EMPTY, BASE = "socket ceiling: read, drop", "picows, empty callback", "picows, orjson + float + dict"
INTAKE, ENGINE = "tradeback, line + decode + tape", "tradeback run, everything"
VARIANTS = (CEILING, EMPTY, BASE, INTAKE, ENGINE)
VARIANTS_TLS_SMALL = (BASE, INTAKE)


class Client(Protocol):
    """What reads the blast."""

    def snap(self) -> Snapshot:
        """Frames taken, time, CPU time."""

    def wrong(self, tally: Tally, taken: int) -> str:
        """What is wrong with what was taken, after everything has arrived; empty when nothing is."""


class _ChildClient:
    """A baseline, or tradeback's ingest alone, in a child process."""

    def __init__(self, child: Child, mean_bytes: float, keeps_ids: bool) -> None:
        self._child = child
        self._unit = mean_bytes
        self._keeps_ids = keeps_ids

    def snap(self) -> Snapshot:
        """Bytes become frames for the design that does not look at them."""
        got: Snapshot = self._child.ask("snap")[1]
        return Snapshot(int(got.taken / self._unit), got.mono_ns, got.cpu_ns)

    def wrong(self, tally: Tally, taken: int) -> str:
        """Compare the count, and the sum of ids where it was kept."""
        if taken != tally.frames:
            return f"{taken} of {tally.frames} frames taken"
        if not self._keeps_ids:
            return ""
        id_sum = self._child.ask("sum")[1]
        want = tally.id_sum + FIRST_FRAMES_ID
        return "" if id_sum == want else f"sum of ids {id_sum} instead of {want}"


class _EngineClient:
    """The whole engine: counted on the tape's files."""

    def __init__(self, engine: Engine, first_frames: int) -> None:
        self._engine = engine
        self._first_frames = first_frames
        self._data = engine.folder / "data"

    def snap(self) -> Snapshot:
        """Records on the tape."""
        return Snapshot(rows_written(self._data), time.monotonic_ns(), machine.cpu_ns(self._engine.pid))

    def wrong(self, tally: Tally, taken: int) -> str:
        """Read the tape and compare: `taken` counts the seeds of bars and levels too."""
        got = sums(self._data)
        first = self._first_frames
        want = (tally.frames + first, tally.id_sum + first * FIRST_FRAMES_ID, True)
        return "" if (got.rows, got.id_sum, got.intact) == want else f"{got} on the tape instead of {want}"


@contextmanager
def _child(start: Callable[[], Child], mean_bytes: float, keeps_ids: bool) -> Iterator[_ChildClient]:
    child = start()
    try:
        yield _ChildClient(child, mean_bytes, keeps_ids)
    finally:
        child.close()


@contextmanager
def _client(
    variant: str, exchange: Exchange, core: int, pem: str | None, mean_bytes: float
) -> Iterator[_ChildClient | _EngineClient]:
    endpoint, names = exchange.ws_endpoint, exchange.symbols
    if variant == ENGINE:
        trust = {"SSL_CERT_FILE": pem} if pem else {}
        with Engine(exchange, names, core, environment=trust) as engine:
            engine.wait_ready()
            exchange.wait_streams("trade", len(names))
            yield _EngineClient(engine, exchange.do("first_frames"))
        return
    folder = tempfile.mkdtemp(prefix="tradeback-intake-")
    starts: dict[str, Callable[[], Child]] = {
        CEILING: lambda: Child(core, ingest_raw.serve, endpoint, pem, names),
        EMPTY: lambda: Child(core, ingest_picows.serve, endpoint, pem, names, "empty"),
        BASE: lambda: Child(core, ingest_picows.serve, endpoint, pem, names, "orjson"),
        INTAKE: lambda: Child(core, intake.serve, endpoint, pem, names, folder),
    }
    unit = mean_bytes if variant == CEILING else 1.0
    try:
        with _child(starts[variant], unit, variant in (BASE, INTAKE)) as client:
            yield client
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class _Runs:
    """(variant, tls) -> figures per repeat."""

    figures: dict[tuple[str, bool], list[dict[str, float]]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    frames: int = 0


def _one(
    variant: str, exchange: Exchange, pem: str | None, mean_bytes: float, seconds: float, runs: _Runs
) -> None:
    with _client(variant, exchange, machine.cores()[0], pem, mean_bytes) as client:
        at_rest = client.snap()
        exchange.do("blast")
        time.sleep(WARM_UP_SECONDS)
        start = client.snap()
        time.sleep(seconds)
        end = client.snap()
        tally: Tally = exchange.do("halt_blast")
        problem = "" if variant == CEILING else _compare(client, at_rest.taken, tally)
    count = end.taken - start.taken
    runs.frames += tally.frames
    runs.figures.setdefault((variant, pem is not None), []).append(
        {
            "rate": count / (end.mono_ns - start.mono_ns) * 1e3,
            "cpu": (end.cpu_ns - start.cpu_ns) / max(count, 1),
            "busy": (end.cpu_ns - start.cpu_ns) / (end.mono_ns - start.mono_ns) * 100,
        }
    )  # fmt: skip
    if problem:
        runs.wrong.append(f"{variant}{', TLS' if pem else ''}: {problem}")


def _compare(client: Client, at_rest: int, tally: Tally) -> str:
    """Wait until everything sent has been taken; what is wrong with it, empty when nothing is."""
    deadline = time.monotonic() + DRAIN_SECONDS_MAX
    while (taken := client.snap().taken - at_rest) < tally.frames and time.monotonic() < deadline:
        time.sleep(0.02)
    return client.wrong(tally, taken)


def run(options: Options) -> Report:
    """Measure every design plain and over TLS, `repeats` times in turn. Raises NoCompiler."""
    build()
    runs, names, seconds = _Runs(), symbol_names(SYMBOLS), 2.5 if options.full else 0.4
    ends_core = machine.cores()[1]
    with tempfile.TemporaryDirectory() as folder:
        made = certificate.make(Path(folder))
        for tls in (None, made):
            with Exchange(ends_core, names, tls) as exchange:
                _, mean_bytes = exchange.do("make_pool", options.pick(POOL_FRAMES_SMALL, POOL_FRAMES_FULL))
                pem = tls.certificate if tls else None
                measure = partial(_one, exchange=exchange, pem=pem, mean_bytes=mean_bytes)
                variants = VARIANTS if options.full or not tls else VARIANTS_TLS_SMALL
                for _ in range(options.repeats):
                    for variant in variants:
                        measure(variant, seconds=seconds, runs=runs)
    return _report(runs, mean_bytes)


def _report(runs: _Runs, mean_bytes: float) -> Report:
    columns = [
        Column("rate", "M msg/s", 2), Column("ratio", "/ orjson", 1), Column("cpu", "CPU ns/msg"),
        Column("cpu_ratio", "orjson CPU /", 1),
        Column("busy", "CPU %"),
    ]  # fmt: skip
    report = Report(NAME, TITLE, columns, wrong=runs.wrong)
    for tls in (False, True):
        base = medians(runs.figures[BASE, tls])
        for variant in (variant for variant in VARIANTS if (variant, tls) in runs.figures):
            figures = medians(runs.figures[variant, tls])
            figures["ratio"] = ratio(figures["rate"], base["rate"])
            figures["cpu_ratio"] = ratio(base["cpu"], figures["cpu"])
            report.rows.append(Row(f"{'TLS' if tls else 'plain'}: {variant}", figures))
            if variant != INTAKE:
                continue
            where = "over TLS" if tls else "plain"
            busy = figures["busy"]
            doubt = (
                f"only {busy:.0f} % of a core used: disk or others at work" if busy < BUSY_PERCENT_MIN else ""
            )
            report.checks.append(
                Check(f"{where}, M msg/s", figures["rate"], ">=", 2.5 if tls else 4.0, doubt)
            )
            if not tls:
                report.checks.append(
                    Check(f"{where}, ratio to the orjson way", figures["ratio"], ">=", 10.0, doubt)
                )
    report.notes.append(f"{mean_bytes:.0f} bytes per frame with the WebSocket header, tape on disk.")
    report.notes.append(
        "'tradeback run, everything' is bars, Enigma and feed too, while it loads the history of 500 symbols."
    )
    report.notes.append(f"{runs.frames:,} frames sent; counted, and the ids of all that were decoded summed.")
    return report
