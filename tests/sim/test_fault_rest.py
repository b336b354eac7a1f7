"""REST answers spoilt in memory."""

import json
from typing import Any

import pytest

from tradeback.sim.fault_rest import RestFaults
from tradeback.sim.faults import RestAnswer, make_fault

START_US = 1_781_000_000_000_000
QUERY = {"symbol": "BTCUSDT"}
PATH = "/api/v3/historicalTrades"


def rows(count: int = 100) -> list[dict[str, int]]:
    """Trades, one every 100 ms from the market's start."""
    return [{"id": number, "time": (START_US + number * 100_000) // 1_000} for number in range(count)]


def ask(faults: RestFaults, at_s: float, path: str = PATH, **query: str) -> RestAnswer:
    answer = RestAnswer(200, json.dumps(rows()).encode(), {"Content-Type": "application/json"})
    return faults.on_rest(path, query or QUERY, answer, at_s, START_US + int(at_s * 1e6))


def faults_of(*entries: dict[str, Any]) -> RestFaults:
    return RestFaults(list(enumerate(make_fault(entry) for entry in entries)), 1)


def test_slow_erring_and_broken_answers_in_their_window_only() -> None:
    window = {"at": "1s", "for": "1s"}
    slow = faults_of({"kind": "rest_slow", "ms": 700, **window})
    assert [ask(slow, at_s).delay_s for at_s in (0.5, 1.5, 2.5)] == [0.0, 0.7, 0.0]
    wrong = faults_of({"kind": "rest_error", "status": 502, **window})
    assert [ask(wrong, at_s).status for at_s in (0.5, 1.5)] == [200, 502]
    assert json.loads(ask(wrong, 1.5).body)["code"] == -1001
    cut = faults_of({"kind": "rest_cut", **window})
    assert 0 <= (ask(cut, 1.5).cut_bytes or 0) < len(ask(cut, 0.5).body)
    assert ask(faults_of({"kind": "rest_cut", "how": "reset", **window}), 1.5).cut_bytes == -1


@pytest.mark.parametrize("how", ["not_json", "truncated", "html", "empty", "shape"])
def test_garbage_is_no_list_of_trades(how: str) -> None:
    body = ask(faults_of({"kind": "rest_garbage", "how": how}), 1.0).body
    try:
        answer = json.loads(body)
    except ValueError:
        return
    assert not (isinstance(answer, list) and len(answer) == 100)


def test_paths_are_chosen() -> None:
    made = faults_of({"kind": "rest_error", "path": "agg*"})
    assert ask(made, 1.0).status == 200
    assert ask(made, 1.0, "/api/v3/aggTrades").status == 500
    assert made.hits == {"rest_error": 1}


def test_a_database_that_lags_ends_its_pages_early() -> None:
    made = faults_of({"kind": "rest_lag", "ms": 3_000})
    held = json.loads(ask(made, 8.0).body)
    assert [row["id"] for row in held] == list(range(51))
    assert ask(made, 8.0, "/api/v3/klines").body == json.dumps(rows()).encode()


def test_rows_of_a_time_are_missing_for_good() -> None:
    def kept(made: RestFaults, path: str) -> list[int]:
        return [
            number
            for number in range(100)
            if not made.hides(path, "BTCUSDT", number, START_US + number * 100_000, START_US)
        ]

    made = faults_of({"kind": "rest_missing", "at": "2s", "for": "1s", "path": "historicalTrades"})
    assert kept(made, "historicalTrades") == [*range(20), *range(30, 100)]
    assert kept(made, "aggTrades") == list(range(100))
    assert made.hits == {"rest_missing": 10}
    assert ask(made, 2.5).body == json.dumps(rows()).encode()
    some = faults_of({"kind": "rest_missing", "chance": 0.3})
    assert kept(some, "trades") == kept(some, "trades")
    assert 40 < len(kept(some, "trades")) < 95


def test_whoever_does_not_wait_is_banned() -> None:
    made = faults_of({"kind": "rest_limit", "for": "1s", "retry_after": "10s", "count": 2, "ban": "60s"})
    told = [
        (answer.status, answer.headers["Retry-After"])
        for answer in (ask(made, at_s) for at_s in (0, 2, 4, 6))
    ]
    assert told == [(429, "10"), (429, "8"), (429, "6"), (418, "60")]
    assert ask(made, 65.0).status == 418
    assert ask(made, 66.5).status == 200
    patient = faults_of({"kind": "rest_limit", "for": "1s", "retry_after": "10s"})
    assert [ask(patient, at_s).status for at_s in (0.0, 10.0)] == [429, 200]
