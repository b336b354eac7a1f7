"""What the feed and the engine's core notice of four servers behind it: all well, hung, killed and restarted.

The engine runs as users have it, with its recorder, which writes to the servers; 10,000 trades a second flow.
Each trouble is measured between two runs with all servers well. An engine without any server is measured
before and after each repeat. What is compared are all trades of a phase, of all repeats together: a trouble
with the runs next to it, the runs with all servers well with those without servers.

The engine has the first core alone. Recorder and servers have the core of the ends and take what sender and
receiver leave, as they would take other cores where there are some; these two run at once when they are woken
(`machine.urgent`).

In a phase with trouble it begins behind the warm-up and lasts half of the phase; the rest is the restart and
the catching up. At the end every store is compared with the tape.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np

from benchmarks.harness import machine, sink_servers
from benchmarks.harness.engine import Engine
from benchmarks.harness.exchange import Exchange, Paced
from benchmarks.harness.kept_frames import Judged, KeptFrames, keep_feed
from benchmarks.harness.native import build
from benchmarks.harness.options import Options
from benchmarks.harness.report import Check, Column, Report, Row
from benchmarks.harness.sink_servers import HUNG, KILLED, NAMES, SinkServers
from benchmarks.harness.stats import WARM_UP_SHARE, medians, pooled_us, ratio
from benchmarks.harness.store_check import compare
from benchmarks.harness.trades import symbol_names
from benchmarks.path_end_to_end import QUIET_HELD_UP, SETTLE_SECONDS
from tests.flow.all_servers import SINKS
from tests.servers.process import Server
from tradeback.tape.reader import TapeReader

NAME = "path_sinks"
TITLE = "InfluxDB, Redis, NATS and MariaDB behind 10,000 trades/s: the feed and the engine's core meanwhile"
SYMBOLS = 10
RATE = 10_000
TRADES_MAX = 2_400_000
"""Of one engine."""
PHASE_SECONDS = 4.0
"""In the full size. Short, so that calm and trouble change places often: repeat it."""
BASE_LENGTH = 4
"""The runs without servers are so many times as long: there are only two of them."""
WELL_SECONDS_MAX = 60.0
FILL_SECONDS = 0.2
"""Trades flow while servers recover: an exchange that is silent for 5 s would be taken for dead."""
LONG = 2
"""Phases with trouble of all servers are so many times as long as the others."""
HANG_SECONDS = 30.0
"""In the full size all servers hang for so long once more."""
NONE, WELL, ALL = "no servers", "all four, well", "all four"
TO_THE_END = ("influx:trades", "redis:ticks", "nats:ticks")
"""Sinks that take every record as it comes. Bars follow seconds later, and are compared in tests/flow."""
P99_TARGET, COST_TARGET, GROWTH_MB_MAX = 1.3, 5.0, 64.0


@dataclass(frozen=True)
class Phase:
    """A stretch of trades with trouble."""

    name: str
    servers: tuple[Server, ...]
    trouble: str
    length: int = 1
    hang_s: float = 0.0
    """How long the trouble lasts; 0: half of the phase."""

    def seconds(self, usual_s: float) -> tuple[float, float]:
        """How long it lasts, and how long its trouble."""
        if self.hang_s:
            return self.hang_s * 1.2, self.hang_s
        return usual_s * self.length, usual_s * self.length / 2

    def calm_seconds(self, usual_s: float) -> float:
        """How long each of the two runs next to it lasts."""
        return self.hang_s * 0.4 if self.hang_s else usual_s


@dataclass
class Runs:
    """Everything that was measured, by name of the phase."""

    figures: dict[str, list[dict[str, float]]] = field(default_factory=lambda: defaultdict(list))
    received: dict[str, list[Judged]] = field(default_factory=lambda: defaultdict(list))
    calm: dict[str, list[Judged]] = field(default_factory=lambda: defaultdict(list))
    """By name of a phase with trouble: the runs next to it."""
    wrong: list[str] = field(default_factory=list)
    stores: list[str] = field(default_factory=list)
    trades: int = 0


def phases_of(servers: tuple[Server, ...], *, long_hang: bool) -> list[Phase]:
    """All phases with trouble, in their order."""
    named = {NAMES[type(server)]: (server,) for server in servers}
    return [
        *(Phase(f"{name} {HUNG}", each, HUNG) for name, each in named.items()),
        *(Phase(f"{name} {KILLED}, restarted", each, KILLED) for name, each in named.items()),
        Phase(f"{ALL} {HUNG}", servers, HUNG, LONG),
        Phase(f"{ALL} {KILLED}, restarted", servers, KILLED, LONG),
        *([Phase(f"{ALL} {HUNG} for {HANG_SECONDS:.0f} s", servers, HUNG, hang_s=HANG_SECONDS)] * long_hang),
    ]


class Feed:
    """Sends trades and measures how they arrive, run after run, and what the processes use meanwhile."""

    def __init__(self, exchange: Exchange, engine: Engine, kept: KeptFrames, base_ns: int) -> None:
        self._exchange, self._kept = exchange, kept
        self.family = engine.family()
        self._plan = Paced(base_ns, RATE, 0, 0, 1, catch_up=False)
        self._used: dict[str, float] = {}

    def play(self, seconds: float) -> None:
        """Send the trades of a run, and note what engine and recorder use, and how late the sender was."""
        before, count = self._plan, int(RATE * seconds)
        plan = self._plan = Paced(before.base_ns, RATE, before.first + before.count, count, 1, catch_up=False)
        time.sleep(SETTLE_SECONDS)
        engine, recorder = self.family["engine"], self.family["recorder"]
        start, held_up = time.monotonic_ns(), machine.held_up_ns(engine)
        engine_ns, recorder_ns = machine.cpu_ns(engine), machine.cpu_ns(recorder)
        self._exchange.begin("paced", plan)
        late_ns = self._exchange.end()
        took = time.monotonic_ns() - start
        engine_ns, recorder_ns = machine.cpu_ns(engine) - engine_ns, machine.cpu_ns(recorder) - recorder_ns
        self._used = {
            "cpu_us": engine_ns / count / 1e3,
            "cpu": engine_ns / took * 100,
            "recorder_cpu": recorder_ns / took * 100,
            "engine_mb": machine.rss_mb(engine),
            "recorder_mb": machine.rss_mb(recorder),
            "held_up": (machine.held_up_ns(engine) - held_up) / took * 100,
            "late": float(np.percentile(late_ns, 99)) / 1e3,
        }

    def look(self, name: str, runs: Runs) -> Judged:
        """What came of it: every trade must have come, as it was sent. Takes a while, and the ends' core."""
        received, count = self._kept.receive(self._plan), self._plan.count
        runs.trades += len(received.latency_ns)
        if len(received.latency_ns) != count or received.wrong:
            got = f"{len(received.latency_ns)} of {count} trades, {received.wrong} wrong"
            runs.wrong.append(f"{name}: {got}")
        return received

    def keep(self, name: str, runs: Runs) -> Judged:
        """Keep what came of a run."""
        received = self.look(name, runs)
        runs.received[name].append(received)
        runs.figures[name].append(self._used)
        return received

    def measure(self, name: str, seconds: float, runs: Runs) -> Judged:
        """One run, kept."""
        self.play(seconds)
        return self.keep(name, runs)

    def fill(self, name: str, runs: Runs) -> None:
        """Trades that nobody measures, but counts."""
        self.play(FILL_SECONDS)
        self.look(name, runs)


def sick_parts(engine: Engine) -> dict[str, str]:
    """What of the servers and sinks is not well, with its words."""
    parts = {part["name"]: part for part in json.loads(engine.get("/health/detailed")[1])["components"]}
    names = ["store:registry", *(f"sink:{name}" for name in SINKS)]
    return {
        name: str(parts[name].get("error")) if name in parts else "not there"
        for name in names
        if name not in parts or parts[name]["state"] != "ok"
    }


def behind(engine: Engine) -> dict[str, int]:
    """Records that are on the tape and not in a store, of the sinks that take all."""
    parts = {part["name"]: part for part in json.loads(engine.get("/health/detailed")[1])["components"]}
    head = TapeReader(engine.folder / "data" / "tape").next_sequence - 1
    left = {name: head - int(parts[f"sink:{name}"]["details"]["position"]) for name in TO_THE_END}
    return {name: count for name, count in left.items() if count}


@contextmanager
def _measured(core: int, ends: int, environment: dict[str, str]) -> Iterator[tuple[Engine, Feed]]:
    """An engine with its recorder, ready and with the history loaded, and a subscriber."""
    names = symbol_names(SYMBOLS)
    with ExitStack() as stack:
        exchange = stack.enter_context(Exchange(ends, names))
        engine = stack.enter_context(Engine(exchange, names, core, alone=False, environment=environment))
        engine.wait_ready()
        exchange.wait_streams("trade", len(names))
        engine.wait_history(WELL_SECONDS_MAX)
        base_ns = time.monotonic_ns()
        kept = stack.enter_context(keep_feed(engine.port, names, base_ns, TRADES_MAX))
        feed = Feed(exchange, engine, kept, base_ns)
        for name in ("recorder", "supervisor"):
            machine.stand_back(feed.family[name], ends)
        yield engine, feed


def _until(done: Callable[[], object], feed: Feed, what: str, runs: Runs) -> None:
    """Trades flow until `done` answers nothing more. Raises TimeoutError with what it answered."""
    deadline = time.monotonic() + WELL_SECONDS_MAX
    while left := done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}, {WELL_SECONDS_MAX:.0f} s later: {left}")
        feed.fill(what, runs)


def _without(core: int, ends: int, seconds: float, servers: SinkServers, runs: Runs) -> None:
    """An engine that knows of no server, though they run."""
    with _measured(core, ends, {}) as (_, feed):
        servers.wait()
        feed.measure(NONE, seconds, runs)


def _with(core: int, ends: int, seconds: float, servers: SinkServers, runs: Runs, *, long_hang: bool) -> None:
    with _measured(core, ends, servers.stores.variables) as (engine, feed):
        _until(lambda: sick_parts(engine), feed, "at the beginning", runs)
        before = feed.measure(WELL, seconds, runs)
        for phase in phases_of(servers.all, long_hang=long_hang):
            length_s, trouble_s = phase.seconds(seconds)
            calm_s = phase.calm_seconds(seconds)
            if calm_s != seconds:
                before = feed.measure(WELL, calm_s, runs)
            after_s = SETTLE_SECONDS + WARM_UP_SHARE * length_s
            with servers.trouble(phase.servers, phase.trouble, after_s, trouble_s):
                feed.play(length_s)
            feed.keep(phase.name, runs)
            _until(lambda: sick_parts(engine), feed, f"after {phase.name}", runs)
            after = feed.measure(WELL, calm_s, runs)
            runs.calm[phase.name] += [before, after]
            before = after
        deadline = time.monotonic() + WELL_SECONDS_MAX
        while (left := behind(engine)) and time.monotonic() < deadline:
            time.sleep(SETTLE_SECONDS)
        if left:
            runs.wrong.append(f"records that are not in the stores {WELL_SECONDS_MAX:.0f} s later: {left}")
        if engine.family() != feed.family:
            runs.wrong.append("a process of the engine did not survive the run")
        found = compare(engine, servers.stores)
        runs.stores.append("; ".join(found.told))
        runs.wrong += found.wrong


def run(options: Options) -> Report:
    """Measure, `repeats` times, with engines and servers of their own. Raises NoCompiler."""
    if reason := sink_servers.not_installed():
        return Report(NAME, TITLE, [], skipped=reason)
    build()
    core, ends = machine.cores()
    runs, seconds, base_length = Runs(), 0.3, 1
    if options.full:
        seconds, base_length = PHASE_SECONDS, BASE_LENGTH
    for _ in range(options.repeats):
        with machine.pinned(ends), SinkServers(ends) as servers:
            _without(core, ends, base_length * seconds, servers, runs)
            _with(core, ends, seconds, servers, runs, long_hang=options.full)
            if options.full:
                _without(core, ends, base_length * seconds, servers, runs)
    return report_of(runs)


def _figures(runs: Runs, name: str) -> dict[str, float]:
    """One row: what was used, in medians; latencies of all trades together, and their ratio to the calm."""
    received = runs.received[name]
    figures = medians(runs.figures[name])
    figures["p50"], figures["p99"] = pooled_us([each.latency_ns for each in received], 50, 99)
    sent_ns = [each.sent_ns for each in received]
    figures["s50"], figures["s99"], figures["longest"] = pooled_us(sent_ns, 50, 99, 100)
    calm = runs.received[NONE] if name == WELL else runs.calm[name]
    if name != NONE:
        (calm_s99,) = pooled_us([each.sent_ns for each in calm], 99)
        (calm_p99,) = pooled_us([each.latency_ns for each in calm], 99)
        figures["s_ratio"] = ratio(figures["s99"], calm_s99)
        figures["ratio"] = ratio(figures["p99"], calm_p99)
        figures["cpu_ratio"] = ratio(figures["cpu_us"], medians(runs.figures[NONE])["cpu_us"])
    return figures


def report_of(runs: Runs) -> Report:
    """The table: one row per phase."""
    report = Report(
        NAME, TITLE,
        [
            Column("s50", "until sent p50 us", 1), Column("s99", "p99 us", 1),
            Column("s_ratio", "p99 / calm", 2), Column("longest", "longest us"),
            Column("p50", "until arrived p50 us", 1), Column("p99", "p99 us", 1),
            Column("ratio", "p99 / calm", 2),
            Column("cpu_us", "engine CPU us/trade", 2), Column("cpu_ratio", "/ none", 2),
            Column("cpu", "engine CPU %", 1), Column("recorder_cpu", "recorder CPU %", 1),
            Column("engine_mb", "engine MB"), Column("recorder_mb", "recorder MB"),
            Column("late", "late p99 us", 1), Column("held_up", "held up %", 1),
        ],
        wrong=runs.wrong,
    )  # fmt: skip
    report.rows += [Row(name, _figures(runs, name)) for name in runs.figures]
    report.checks += _checks(report)
    report.notes += [
        *(f"Afterwards, in the stores: {words}." for words in runs.stores),
        f"{runs.trades:,} trades received, each compared by number, order and price.",
        "Until sent: from the exchange's send to the engine's, which v2 frames tell. Until arrived: in the "
        "subscriber; the targets are for that.",
        "Calm: next to trouble the runs before and after it with all servers well, next to these the engine "
        "without servers; all trades of all repeats together. Next to the long hang these last 12 s each.",
        "Trouble begins behind the warm-up and lasts half of a phase; the rest is restart and catching up, "
        f"but where its time is named. Phases with trouble of all four are {LONG} times as long.",
    ]
    return report


def _doubt_of(figures: dict[str, float], base: dict[str, float]) -> str:
    """Why a ratio of these two means little. A late sender is no reason: times count from its real send."""
    held_up = max(figures["held_up"], base["held_up"])
    return f"not quiet: core taken by others for {held_up:.1f} %" if held_up > QUIET_HELD_UP else ""


def _checks(report: Report) -> list[Check]:
    with_servers = {row.name: row.figures for row in report.rows}
    calm = with_servers.pop(NONE)
    doubts = {name: _doubt_of(figures, calm) for name, figures in with_servers.items()}
    well = with_servers[WELL]
    checks = [
        Check("engine's core, all sinks on minus none, % of it", well["cpu"] - calm["cpu"], "<=", COST_TARGET,
              doubts[WELL]),
        Check(f"{WELL}, feed p99 to none", well["ratio"], "<=", P99_TARGET, doubts[WELL]),
    ]  # fmt: skip
    for kind in (HUNG, KILLED):
        found = {name: figures for name, figures in with_servers.items() if kind in name}
        worst = max(found, key=lambda name: found[name]["ratio"])
        words = f"{worst} (the worst), feed p99 to calm"
        checks.append(Check(words, found[worst]["ratio"], "<=", P99_TARGET, doubts[worst]))
    for part in ("engine", "recorder"):
        most = max(figures[f"{part}_mb"] for figures in with_servers.values())
        grown = most - well[f"{part}_mb"]
        checks.append(Check(f"{part}, MB grown over all trouble", grown, "<=", GROWTH_MB_MAX))
    return checks
