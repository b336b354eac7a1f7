"""path_sinks: its phases, and what its verdicts are made of."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from benchmarks import path_sinks
from benchmarks.harness import sink_servers
from benchmarks.harness.engine import Engine
from benchmarks.harness.kept_frames import Judged
from benchmarks.harness.options import Options
from benchmarks.harness.sink_servers import HUNG, KILLED, NAMES
from benchmarks.path_sinks import NONE, WELL, Runs, phases_of, report_of, sick_parts
from tests.flow.all_servers import SINKS
from tests.servers.kinds import InfluxServer, MariadbServer, NatsServer, RedisServer
from tests.servers.process import Server


@pytest.fixture
def servers(tmp_path: Path) -> tuple[Server, ...]:
    kinds = (InfluxServer, RedisServer, NatsServer, MariadbServer)
    return tuple(kind(tmp_path / kind.program) for kind in kinds)


BESIDE = {
    "cpu_us": 8.0, "cpu": 8.0, "recorder_cpu": 5.0, "engine_mb": 150.0, "recorder_mb": 150.0, "held_up": 0.0,
    "late": 10.0,
}  # fmt: skip


def run_of(us: float) -> Judged:
    """A run whose p99 until arrived this is, and 4 until sent."""
    latency_ns = np.full(1_000, int(us * 1_000), np.int64)
    return Judged(latency_ns, np.full(1_000, 4_000, np.int64), 0)


def add(runs: Runs, name: str, us: float, *calm_us: float, **beside: float) -> None:
    runs.received[name].append(run_of(us))
    runs.calm[name] += [run_of(each) for each in calm_us]
    runs.figures[name].append({**BESIDE, **beside})


def runs_of(servers: tuple[Server, ...], **worse: tuple[float, dict[str, float]]) -> Runs:
    runs = Runs()
    add(runs, NONE, 50.0)
    names = [WELL, *(phase.name for phase in phases_of(servers, long_hang=False))]
    for name in names:
        us, beside = worse.get(name, (55.0, {}))
        add(runs, name, us, 50.0, 50.0, **beside)
    return runs


def test_every_server_is_hung_and_killed_alone_and_with_all(servers: tuple[Server, ...]) -> None:
    phases = phases_of(servers, long_hang=False)
    for kind in (HUNG, KILLED):
        found = [phase.servers for phase in phases if phase.trouble == kind]
        assert found == [*((server,) for server in servers), servers]
    assert len({phase.name for phase in phases}) == len(phases) == 2 + 2 * len(NAMES)


def test_the_long_hang_lasts_as_long_as_it_says(servers: tuple[Server, ...]) -> None:
    *usual, long = phases_of(servers, long_hang=True)
    assert usual == phases_of(servers, long_hang=False)
    assert (long.servers, long.trouble, long.seconds(2.0)) == (servers, HUNG, (36.0, 30.0))
    assert long.calm_seconds(2.0) == pytest.approx(12.0)
    assert {phase.seconds(2.0) for phase in usual} == {(2.0, 1.0), (4.0, 2.0)}
    assert {phase.calm_seconds(2.0) for phase in usual} == {2.0}


def test_all_trades_of_all_repeats_are_compared(servers: tuple[Server, ...]) -> None:
    runs = runs_of(servers)
    add(runs, "NATS hung", 75.0, 60.0, 40.0)
    rows = {row.name: row.figures for row in report_of(runs).rows}
    assert rows["NATS hung"]["ratio"] == pytest.approx(75 / 60), "not the median of 55 / 50 and 75 / 60"
    assert rows["Redis hung"]["ratio"] == pytest.approx(55 / 50)
    assert rows["Redis hung"]["s_ratio"] == pytest.approx(1.0)


def test_ratios_are_to_the_calm_runs_and_all_is_well(servers: tuple[Server, ...]) -> None:
    report = report_of(runs_of(servers))
    assert [check.met for check in report.checks] == [True] * 6
    rows = {row.name: row.figures for row in report.rows}
    assert rows[WELL]["ratio"] == pytest.approx(1.1)
    assert "ratio" not in rows[NONE]


@pytest.mark.parametrize(
    ("phase", "us", "beside", "missed"),
    [
        (WELL, 55.0, {"cpu": 13.1}, "engine's core"),
        (WELL, 66.0, {}, "all four, well, feed"),
        ("Redis hung", 65.6, {}, "Redis hung"),
        ("NATS killed, restarted", 65.6, {}, "NATS killed"),
        ("all four hung", 55.0, {"recorder_mb": 215.0}, "recorder, MB"),
        ("InfluxDB hung", 55.0, {"engine_mb": 215.0}, "engine, MB"),
    ],
)
def test_each_target_can_be_missed(
    servers: tuple[Server, ...], phase: str, us: float, beside: dict[str, float], missed: str
) -> None:
    (check,) = [
        check for check in report_of(runs_of(servers, **{phase: (us, beside)})).checks if not check.met
    ]
    assert check.name.startswith(missed)


def test_a_machine_that_was_not_quiet_decides_nothing(servers: tuple[Server, ...]) -> None:
    runs = runs_of(servers, **{WELL: (55.0, {"held_up": 9.0})})
    missed = [check.doubt for check in report_of(runs).checks if not check.met]
    assert len(missed) == 2
    assert all(doubt.startswith("not quiet") for doubt in missed)


def test_what_is_sick_is_named() -> None:
    parts: list[dict[str, Any]] = [{"name": f"sink:{name}", "state": "ok"} for name in SINKS[1:]]
    parts += [{"name": "store:registry", "state": "down", "error": "gone"}, {"name": "disk", "state": "down"}]

    class Answering:
        def get(self, path: str) -> tuple[int, bytes]:
            return 200, json.dumps({"components": parts}).encode()

    engine = cast(Engine, Answering())
    assert sick_parts(engine) == {"store:registry": "gone", f"sink:{SINKS[0]}": "not there"}
    parts.append({"name": f"sink:{SINKS[0]}", "state": "ok"})
    parts[-3]["state"] = "ok"
    assert sick_parts(engine) == {}


def test_without_the_servers_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_servers, "not_installed", lambda: "not installed: influxd")
    assert path_sinks.run(Options()).skipped == "not installed: influxd"
