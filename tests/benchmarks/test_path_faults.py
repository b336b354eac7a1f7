"""path_faults: what it counts as lost, doubled and strange; and some moments of it against the engine."""

import ctypes
from typing import Any, cast

import numpy as np
import pytest

from benchmarks import path_faults
from benchmarks.harness import machine
from benchmarks.harness.broken_exchange import BrokenExchange, Played
from benchmarks.harness.engine import Engine
from benchmarks.harness.kept_frames import Arrived, KeptFrames
from benchmarks.harness.trades import symbol_names
from benchmarks.path_faults import CALM, CUTS, LOST, RUNS, Runs, Watch, measure, report_of


class Kept:
    """Hands out what a test puts in."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, bool]] = []
        self.strange = 0

    def take(self) -> Arrived:
        rows, self.rows = self.rows, []
        columns = np.array(rows, np.int64).reshape(-1, 4).T
        number, arrived, stamp, repaired = (np.ascontiguousarray(column) for column in columns)
        return Arrived(number, arrived, arrived, stamp, repaired != 0, self.strange)


def played(*lost: int) -> Played:
    return Played(np.zeros(1, np.int64), 0, 0, np.array(lost, np.int64))


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def watch(kept: Kept) -> Watch:
    return Watch(cast(KeptFrames, kept))


def test_all_is_well(kept: Kept, watch: Watch) -> None:
    kept.rows = [(number, 1_000 + number * 10, number * 10, False) for number in range(100, 110)]
    run = watch.run(100, 10, played())
    assert (run.lost, run.doubled, run.wrong, len(run.repair_s)) == (0, 0, [], 0)
    assert run.latency_ns.tolist() == [1_000] * 10


def test_repaired_trades_are_not_latency_but_count_as_come(kept: Kept, watch: Watch) -> None:
    kept.rows = [(0, 50, 0, False), (2, 50, 0, False)]
    assert watch.missing(0, 3) == 1
    kept.rows = [(1, 2_000_000_000, 0, True)]
    assert watch.missing(0, 3) == 0
    run = watch.run(0, 3, played(1))
    assert (run.lost, run.doubled, run.wrong) == (0, 0, [])
    assert run.by_rest == 0
    assert (run.latency_ns.tolist(), run.repair_s.tolist()) == ([50, 50], [2.0])


def test_losses_doubles_and_strange_entries_are_found(kept: Kept, watch: Watch) -> None:
    kept.rows = [(0, 1, 0, False), (0, 1, 0, False), (0, 1, 0, True), (3, 1, 0, False)]
    kept.strange = 2
    run = watch.run(0, 4, played())
    assert (run.lost, run.doubled, run.by_rest) == (2, 2, 1)
    assert run.wrong == ["2 entries that nobody sent"]


def put(runs: Runs, name: str, *us: int, held_up: float = 0.0) -> None:
    """One run of 100 trades: half of them at the first, one in ten at each other figure."""
    latency = [us[0]] * (100 - 10 * len(us[1:])) + [each for each in us[1:] for _ in range(10)]
    runs.latency_ns[name].append(np.array(latency, np.int64) * 1_000)
    runs.figures[name].append({"late": 10.0, "held_up": held_up})


def test_ratios_are_of_all_trades_of_a_kind_and_doubt_is_said() -> None:
    runs = Runs(repair_s=0.7)
    put(runs, CALM, 10, 50)
    put(runs, CALM, 12, 60)
    put(runs, CUTS, 11, 90)
    put(runs, CUTS, 11)
    put(runs, LOST, 11, 70, held_up=9.0)
    report = report_of(runs)
    assert [row.name.partition(", ")[2] for row in report.rows] == [CALM, CUTS, LOST]
    assert report.rows[0].figures["p99"] == pytest.approx(60)
    assert report.rows[1].figures["p99_ratio"] == pytest.approx(1.5)
    assert [row.figures.get("repair") for row in report.rows] == [None, None, 0.7]
    cuts, lost = report.checks
    assert (cuts.met, cuts.doubt) == (True, "")
    assert not lost.met
    assert lost.doubt.startswith("not quiet")


def test_some_moments_against_the_engine(native: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_faults, "CUTS_PER_SECOND", 20.0)
    monkeypatch.setattr(path_faults, "LOSSES_PER_SECOND", 10.0)
    names, runs = symbol_names(path_faults.SYMBOLS), Runs()
    with (
        BrokenExchange(machine.cores()[1], names) as exchange,
        Engine(exchange, names, None, environment=path_faults.SETTINGS) as engine,
    ):
        engine.wait_ready()
        exchange.wait_streams("trade", 2 * len(names), timeout_s=60.0)
        measure(exchange, engine, 0.4, 2, 1, runs)
    report = report_of(runs)
    assert report.wrong == []
    assert runs.trades == 2 * len(RUNS) * 4_000
    rows: dict[str, Any] = {row.name.partition(", ")[2]: row.figures for row in report.rows}
    assert rows[CUTS]["broken"] >= 1
    assert rows[LOST]["broken"] >= 4
    assert rows[LOST]["repair"] > 0
