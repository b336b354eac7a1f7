"""Fan-out: one frame to N subscribers, by CPU time of the server, against a C send loop and two libraries.

Sender and all readers are one C process on the other core. A broadcast begins when the last subscriber
has the one before, so the time to the last subscriber is free of queues. tradeback gets trades from its
exchange line, decodes them, writes the tape and encodes; the baselines send a frame made beforehand.

A send costs the server three times as much when it wakes its receiver, and again when the receiver's core has
just acknowledged the frame before; left alone, which of these holds is chance and lasts for seconds. So the
readers hold all servers in one regime: they look every 50 us instead of waiting, and delay acknowledgements
(native/fanout.c). What is left of chance is other work on the server's core: `held up` shows it.
"""

import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.alternatives import fanout_aiohttp, fanout_c, fanout_websockets
from benchmarks.harness import children, machine
from benchmarks.harness.children import Child
from benchmarks.harness.engine import Engine
from benchmarks.harness.exchange import Broadcasts, Exchange, Rounds
from benchmarks.harness.native import build
from benchmarks.harness.options import Options
from benchmarks.harness.report import Check, Column, Report, Row
from benchmarks.harness.stats import medians, percentiles_us, ratio
from benchmarks.harness.trades import price_steps, symbol_names, ws_header

NAME = "path_fanout"
TITLE = (
    "One v1 frame to N subscribers; frames per second of the server's CPU, and ms until the last one has it"
)
SYMBOLS = 10
HISTORY_SECONDS_MAX = 20.0
BURSTS = (5, 50)
"""Trades per frame: 98 and 910 bytes with the WebSocket header."""
CHECKED_CLIENTS = 1_000
CLIENTS_SMALL, CLIENTS_FULL = (100,), (100, 1_000, 5_000)
VARIANTS = ("C send loop", "tradeback", "aiohttp send_bytes", "websockets broadcast")
WARM_UP_ROUNDS = 20
ENTRY_PRICE, ENTRY_VOLUME = 60_000.0, 1.0
SPARE_FILES = 500
QUIET_HELD_UP = 3.0
"""Not quiet: a server waits for its core for more than this share of the time (percent)."""

Target = tuple[int, int, list[str]]
"""(pid, feed port, symbols to subscribe; none for a baseline)."""


def baseline_payload(entries: int) -> bytes:
    """A valid v1 frame: what the baselines send."""
    entry = struct.pack("<Hdd", 1, ENTRY_PRICE, ENTRY_VOLUME)
    body = entries.to_bytes(2, "little") + entry * entries
    return zlib.crc32(body).to_bytes(4, "little") + body


@contextmanager
def _tradeback(exchange: Exchange, core: int) -> Iterator[Target]:
    with Engine(exchange, exchange.symbols, core) as engine:
        engine.wait_ready()
        exchange.wait_streams("trade", len(exchange.symbols))
        engine.wait_history(HISTORY_SECONDS_MAX)
        yield engine.pid, engine.port, exchange.symbols


@contextmanager
def _baseline(start: Callable[[], Child]) -> Iterator[Target]:
    child = start()
    try:
        yield child.pid, child.hello, []
    finally:
        child.close()


@contextmanager
def _target(variant: str, exchange: Exchange, core: int, clients: int, burst: int) -> Iterator[Target]:
    payload, port = baseline_payload(burst), exchange.stream_port
    trigger_bytes = burst * exchange.frames.frame_bytes
    if variant == "tradeback":
        with _tradeback(exchange, core) as target:
            yield target
        return
    starts: dict[str, Callable[[], Child]] = {
        "C send loop": lambda: Child(
            core, fanout_c.serve, port, trigger_bytes, ws_header(len(payload), 2) + payload, clients
        ),
        "aiohttp send_bytes": lambda: Child(core, fanout_aiohttp.serve, port, trigger_bytes, payload),
        "websockets broadcast": lambda: Child(core, fanout_websockets.serve, port, trigger_bytes, payload),
    }
    with _baseline(starts[variant]) as target:
        yield target


@dataclass
class _Runs:
    """(variant, clients, burst) -> figures per repeat."""

    figures: dict[tuple[str, int, int], list[dict[str, float]]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    entries: int = 0

    def add(
        self, key: tuple[str, int, int], plan: Rounds, got: Broadcasts, cpu_ns: int, held_up: float
    ) -> None:
        variant, clients, burst = key
        p50, p99 = percentiles_us(got.last_ns, 50, 99)
        entries = clients * burst * plan.rounds
        self.entries += got.entries
        self.figures.setdefault(key, []).append(
            {
                "frames": got.frames / cpu_ns * 1e9, "updates": got.entries / cpu_ns * 1e3,
                "p50": p50 / 1e3, "p99": p99 / 1e3, "per": got.frames / (clients * plan.rounds),
                "held_up": held_up,
            }
        )  # fmt: skip
        prices = price_steps(plan.first, plan.rounds * burst).sum() if variant == "tradeback" else 0
        if (got.entries, got.price_sum) != (entries, clients * int(prices)):
            self.wrong.append(
                f"{variant}, {clients} clients, {burst} per frame: {got.entries} entries of {entries}, "
                f"sum of prices {got.price_sum} instead of {clients * int(prices)}"
            )


def _one(key: tuple[str, int, int], rounds: int, runs: _Runs) -> None:
    variant, clients, burst = key
    server_core, ends_core = machine.cores()
    with (
        Exchange(ends_core, symbol_names(SYMBOLS)) as exchange,
        _target(variant, exchange, server_core, clients, burst) as (pid, port, names),
    ):
        exchange.do("subscribe", port, clients, names, timeout_s=120.0)
        exchange.do("rounds", Rounds(0, burst, WARM_UP_ROUNDS))
        plan = Rounds(WARM_UP_ROUNDS * burst, burst, rounds)
        cpu, held_up, start = machine.cpu_ns(pid), machine.held_up_ns(pid), time.monotonic_ns()
        got = exchange.do("rounds", plan, timeout_s=600.0)
        waited = (machine.held_up_ns(pid) - held_up) / (time.monotonic_ns() - start) * 100
        runs.add(key, plan, got, machine.cpu_ns(pid) - cpu, waited)


def run(options: Options) -> Report:
    """Measure every server with every number of clients, `repeats` times in turn. Raises NoCompiler."""
    build()
    report = Report(
        NAME, TITLE,
        [
            Column("frames", "frames/s/core"), Column("ratio", "/ C", 2),
            Column("updates", "M updates/s/core", 2), Column("p50", "last p50 ms", 2),
            Column("p99", "last p99 ms", 2), Column("per", "frames/client", 2),
            Column("held_up", "held up %", 1),
        ],
    )  # fmt: skip
    runs = _Runs()
    files = machine.raise_open_files(children.OPEN_FILES)
    clients_all = CLIENTS_FULL if options.full else CLIENTS_SMALL
    possible = [clients for clients in clients_all if clients + SPARE_FILES <= files]
    for clients in set(clients_all) - set(possible):
        report.notes.append(f"{clients:,} clients skipped: only {files:,} open files are allowed.")
    deliveries = options.pick(20_000, 1_500_000)
    for _ in range(options.repeats):
        for clients in possible:
            for burst in BURSTS:
                rounds = min(max(deliveries // clients, 50), 5_000)
                for variant in VARIANTS:
                    _one((variant, clients, burst), rounds, runs)
    _fill(report, runs, possible)
    return report


def _fill(report: Report, runs: _Runs, clients_all: list[int]) -> None:
    report.wrong += runs.wrong
    for clients in clients_all:
        for burst in BURSTS:
            base = medians(runs.figures["C send loop", clients, burst])
            for variant in VARIANTS:
                figures = medians(runs.figures[variant, clients, burst])
                figures["ratio"] = ratio(figures["frames"], base["frames"])
                report.rows.append(Row(f"{clients:,} x {burst} per frame, {variant}", figures))
                if variant == "tradeback" and clients == CHECKED_CLIENTS:
                    _check(report, burst, figures, max(figures["held_up"], base["held_up"]))
    report.notes.append(
        "Subscribers look every 50 us and acknowledge late, so that no send wakes anybody or meets an "
        "acknowledgement: one regime for all servers. held up: time in which others had the server's core."
    )
    report.notes.append(f"{runs.entries:,} entries received, counted and their prices summed.")


def _check(report: Report, burst: int, figures: dict[str, float], held_up: float) -> None:
    doubt = f"not quiet: core taken by others for {held_up:.1f} %" if held_up > QUIET_HELD_UP else ""
    where = f"tradeback, {CHECKED_CLIENTS:,} clients, {burst} per frame"
    if burst == min(BURSTS):
        report.checks.append(Check(f"{where}, frames to C send loop", figures["ratio"], ">=", 0.85, doubt))
    else:
        report.checks.append(Check(f"{where}, M updates/s/core", figures["updates"], ">=", 8.0, doubt))
