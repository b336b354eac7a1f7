"""path_sinks: its phases, and what its verdicts are made of."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks import path_sinks
from benchmarks.harness import sink_servers
from benchmarks.harness.engine import Engine
from benchmarks.harness.options import Options
from benchmarks.harness.sink_servers import HUNG, KILLED, NAMES
from benchmarks.path_sinks import NONE, WELL, Runs, compared, phases_of, report_of, sick_parts
from tests.flow.all_servers import SINKS
from tests.servers.kinds import InfluxServer, MariadbServer, NatsServer, RedisServer
from tests.servers.process import Server


@pytest.fixture
def servers(tmp_path: Path) -> tuple[Server, ...]:
    kinds = (InfluxServer, RedisServer, NatsServer, MariadbServer)
    return tuple(kind(tmp_path / kind.program) for kind in kinds)


def figures(s99: float, **more: float) -> dict[str, float]:
    usual = {
        "s50": 10.0,
        "p50": 20.0,
        "p99": 90.0,
        "late": 10.0,
        "held_up": 0.0,
        "cpu_us": 8.0,
        "cpu": 8.0,
        "repeat": 0.0,
    }
    return {**usual, "s99": s99, "recorder_cpu": 5.0, "engine_mb": 150.0, "recorder_mb": 150.0, **more}


def runs_of(servers: tuple[Server, ...]) -> Runs:
    runs = Runs()
    runs.figures[NONE] = [figures(52.0), figures(48.0)]
    runs.bases = [runs.figures[NONE]]
    runs.figures[WELL] = [figures(55.0)]
    for phase in phases_of(servers, long_hang=False):
        runs.figures[phase.name] = [figures(55.0, ratio=1.1, alike=1.0)]
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
    assert {phase.seconds(2.0) for phase in usual} == {(2.0, 1.0), (4.0, 2.0)}


def test_a_phase_of_one_repeat_is_compared_with_that_repeat(servers: tuple[Server, ...]) -> None:
    runs = runs_of(servers)
    runs.bases.append([figures(100.0)])
    runs.figures[WELL] = [figures(120.0, repeat=1.0)]
    rows = {row.name: row.figures for row in report_of(runs).rows}
    assert rows[WELL]["ratio"] == pytest.approx(1.2)


def test_the_better_calm_run_is_the_measure() -> None:
    slow, fast, busy = figures(22.0, s50=9.0), figures(10.0, s50=4.0), figures(12.0, s50=4.4)
    assert compared(busy, slow, fast) == {"ratio": pytest.approx(1.2), "alike": 1.0}
    assert compared(busy, figures(14.0, s50=4.1), fast)["ratio"] == pytest.approx(1.2)
    assert compared(busy, slow) == {"ratio": pytest.approx(12 / 22), "alike": 0.0}


@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_a_comparison_across_paces_counts_but_decides_nothing(
    servers: tuple[Server, ...], ratio: float
) -> None:
    runs = runs_of(servers)
    runs.figures["NATS hung"] = [figures(90.0, ratio=1.8, alike=0.0), figures(55.0, ratio=ratio, alike=1.0)]
    report = report_of(runs)
    rows = {row.name: row.figures for row in report.rows}
    assert rows["NATS hung"]["ratio"] == pytest.approx((1.8 + ratio) / 2)
    (check,) = [check for check in report.checks if check.name.startswith("NATS hung")]
    assert "1 of 2" in check.doubt


def test_ratios_are_to_the_calm_runs_and_all_is_well(servers: tuple[Server, ...]) -> None:
    report = report_of(runs_of(servers))
    assert [check.met for check in report.checks] == [True] * 6
    rows = {row.name: row.figures for row in report.rows}
    assert rows[WELL]["ratio"] == pytest.approx(55 / 48)
    assert "ratio" not in rows[NONE]


@pytest.mark.parametrize(
    ("phase", "worse", "missed"),
    [
        (WELL, {"cpu": 13.1}, "engine's core"),
        (WELL, {"s99": 66.0}, "all four, well, feed"),
        ("Redis hung", {"ratio": 1.31}, "Redis hung"),
        ("NATS killed, restarted", {"ratio": 1.31}, "NATS killed"),
        ("all four hung", {"recorder_mb": 215.0}, "recorder, MB"),
        ("InfluxDB hung", {"engine_mb": 215.0}, "engine, MB"),
    ],
)
def test_each_target_can_be_missed(
    servers: tuple[Server, ...], phase: str, worse: dict[str, float], missed: str
) -> None:
    runs = runs_of(servers)
    runs.figures[phase][0].update(worse)
    (check,) = [check for check in report_of(runs).checks if not check.met]
    assert check.name.startswith(missed)


def test_a_machine_that_was_not_quiet_decides_nothing(servers: tuple[Server, ...]) -> None:
    runs = runs_of(servers)
    runs.figures[WELL][0]["held_up"] = 9.0
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
