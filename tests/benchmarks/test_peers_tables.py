from typing import Any

import pytest

from benchmarks.harness import markdown
from benchmarks.harness.report import Report, as_json, from_json, table_cells
from benchmarks.peers import tables
from benchmarks.peers.account import Latency
from benchmarks.peers.plan import CALM, CUT, CUT_AT_S, FLOOD, PEERS, RUNS
from benchmarks.peers.runner import Outcome, reason_of


def result(trades: int, cpu_s: dict[str, float], **more: Any) -> dict[str, Any]:
    memory = dict.fromkeys(cpu_s, 50.0)
    return {
        "versions": {"orjson": "3.13.0"}, "trades": trades, "quotes": 2 * trades, "conflated": 0,
        "wall_s": 4.0, "cpu_s": cpu_s, "rss_mb": memory, "peak_mb": dict.fromkeys(cpu_s, 70.0),
        "held_up_s": 0.0, "told": [], **more,
    }  # fmt: skip


def counted(**more: Any) -> dict[str, Any]:
    empty = {"received": 4_000, "lost": 0, "lost_ids": 0, "doubled": 0, "stood_in": 0, "unseen": []}
    return {**empty, "reported": 0, "states": {}, "silence_s": 0.05, **more}


@pytest.fixture
def outcomes() -> dict[tuple[str, str], Outcome]:
    found = {
        (peer.key, run.key): Outcome(reason="not installed (No module named 'x')")
        for peer in PEERS
        for run in RUNS
    }
    found["base", FLOOD.key] = Outcome(result=result(100_000, {"peer": 2.0}))
    found["base", CALM.key] = Outcome(
        result=result(400, {"peer": 0.1}), latency=Latency(600, 1_200, 80, 240, 400)
    )
    told = [["exception", 1, "cut"], ["exception", 2, "cut"]]
    found["base", CUT.key] = Outcome(
        result=result(400, {"peer": 0.1}, told=told), account=counted(lost=12, lost_ids=12)
    )
    cpu_s = {"peer": 1.0, "engine": 0.75, "recorder": 0.25}
    found["tradeback", FLOOD.key] = Outcome(result=result(300_000, cpu_s))
    found["tradeback", CUT.key] = Outcome(
        result=result(300, cpu_s, told=[["gap record", 1, "open"]]),
        account=counted(reported=44, states={"repaired": 44}),
    )
    return found


def cells(report: Report) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in table_cells(report)}


def test_speed_counts_all_processes_and_compares_with_the_base(
    outcomes: dict[tuple[str, str], Outcome],
) -> None:
    report = tables.speed(PEERS, outcomes)
    rows = cells(report)
    assert rows["websockets + orjson, by hand"][:9] == [
        "150,000", "1.00", "50", "600", "1,200", "80", "240", "50", "70",
    ]  # fmt: skip
    assert rows["tradeback: engine and client"][:3] == ["450,000", "3.00", "50"]
    assert rows["tradeback: engine and client"][8] == "210"
    assert rows[tables.CLIENT_ALONE][:3] == ["900,000", "6.00", "25"]
    assert rows["ccxt.pro"] == ["-"] * 9 + ["not installed (No module named 'x')"]
    assert any("orjson 3.13.0" in note for note in report.notes)


def test_the_cut_says_who_lost_what_and_who_was_told(outcomes: dict[tuple[str, str], Outcome]) -> None:
    report = tables.cut(PEERS, outcomes)
    rows = cells(report)
    assert rows["websockets + orjson, by hand"] == [
        "4,000",
        "12",
        "0",
        "0",
        "-",
        "0.05",
        "told by 2 exceptions",
    ]
    assert rows["tradeback: engine and client"][1:5] == ["0", "0", "44", "44"]
    assert [check.met for check in report.checks] == [True, True]
    outcomes["tradeback", CUT.key].account["lost"] = 1
    assert [check.met for check in tables.cut(PEERS, outcomes).checks] == [False, True]


def test_aggregates_stand_ins_and_silent_symbols_are_footnotes(
    outcomes: dict[tuple[str, str], Outcome],
) -> None:
    outcomes["cryptofeed", CUT.key] = Outcome(
        result=result(400, {"peer": 0.1}),
        account=counted(lost=500, lost_ids=220, unseen=["BNBUSDT"], stood_in=3),
    )
    report = tables.cut(PEERS, outcomes)
    assert cells(report)["cryptofeed"][1] == "500"
    assert cells(report)["cryptofeed"][-1] == "told nothing"
    notes = "\n".join(report.notes)
    assert "220 of them lost" in notes
    assert "nothing came of BNBUSDT" in notes
    assert "3 trades came as part of a stand-in" in notes


def test_tables_survive_the_result_file(outcomes: dict[tuple[str, str], Outcome]) -> None:
    reports = [tables.speed(PEERS, outcomes), tables.cut(PEERS, outcomes)]
    kept = as_json(reports, "python -m benchmarks.peers", "full")
    assert from_json(kept) == reports
    assert "| tradeback: engine and client | 450,000 |" in markdown.document(kept)


def test_all_peers_failing_is_a_table_of_reasons() -> None:
    failed = {(peer.key, run.key): Outcome(reason="no environment") for peer in PEERS for run in RUNS}
    speed, cut = tables.speed(PEERS, failed), tables.cut(PEERS, failed)
    assert {row.note for row in cut.rows} == {"no environment"}
    assert [row.note for row in speed.rows if row.name != tables.CLIENT_ALONE] == ["no environment"] * len(
        PEERS
    )


@pytest.mark.parametrize(
    ("code", "log", "reason"),
    [
        (
            1,
            "Traceback\nModuleNotFoundError: No module named 'ccxt'\n",
            "not installed (No module named 'ccxt')",
        ),
        (3, "nothing came in 20 s\n", "nothing came in 20 s"),
        (None, "", "did not end in time"),
        (None, "retrying\n\n", "did not end in time: retrying"),
        (-9, "", "ended with code -9, without a word"),
    ],
)
def test_reasons_are_plain(code: int | None, log: str, reason: str) -> None:
    assert reason_of(code, log) == reason


def test_a_quick_run_is_the_same_in_less_time() -> None:
    quick = CUT.scaled(0.5)
    assert (quick.seconds, quick.rate, quick.faults[0]["at"]) == (
        CUT.seconds / 2,
        CUT.rate,
        f"{CUT_AT_S / 2:g}s",
    )
    assert CUT.faults[0]["at"] == f"{CUT_AT_S:g}s"
