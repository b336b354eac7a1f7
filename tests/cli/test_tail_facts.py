"""cli.tail_facts: what the feed and the engine's own words become."""

import orjson
import pytest

from tests.cli.tail_world import BTC, NOW_MS, OTHER, batch, complete, facts, feed_of, old_batch, stats
from tradeback.cli.tail_facts import Facts
from tradeback.client import Control
from tradeback.model.record import LATE, REPAIRED


def test_a_snapshot_is_a_price_and_no_trade_and_a_late_trade_no_price() -> None:
    made, feed = Facts("http://h"), feed_of(BTC)
    made.take(batch((1, 100.0, 0), snapshot=True), feed, NOW_MS)
    row = made.rows[1]
    assert (row.price, row.trades) == (100.0, 0)
    made.take(batch((1, 101.0, 0), (1, 7.0, LATE), (1, 8.0, REPAIRED)), feed, NOW_MS)
    assert (row.price, row.trades, row.direction) == (101.0, 3, 1)


def test_quotes_and_levels() -> None:
    row = facts(BTC).rows[1]
    assert (row.bid, row.ask, row.level) == (64_249.78, 64_249.94, 61.8)
    assert row.fib["0"] == 100_000.0
    assert row.fib["50"] == 55_000.0
    assert row.fib["100"] == 10_000.0


def test_version_1_of_the_feed() -> None:
    made, feed = Facts("http://h"), feed_of(BTC, OTHER)
    made.take(Control({"type": "subscribed", "symbols": {}}), feed, NOW_MS)
    made.take(old_batch((7, 0.5, 1.0)), feed, NOW_MS)
    data = {"symbol": "BTCUSDT", "level": 50.0, "ath": 3.0, "atl": 1.0}
    made.take(Control({"type": "enigma", "data": data}), feed, NOW_MS)
    assert (made.rows[7].price, made.rows[7].trades, made.rows[1].fib["50"]) == (0.5, 1, 2.0)


def test_each_symbol_is_asked_about_in_its_turn() -> None:
    made = Facts("http://h")
    assert made.ask_next(4) == [""]
    made.take(Control({"type": "subscribed"}), feed_of(BTC, OTHER), NOW_MS)
    assert made.ask_next(4) == ["BTCUSDT", "币安人生USDT"]
    assert [made.ask_next(1) for _ in range(3)] == [["BTCUSDT"], ["币安人生USDT"], ["BTCUSDT"]]


def test_how_far_it_is_complete() -> None:
    made = facts(BTC)
    assert (made.rows[1].complete_id, made.rows[1].waiting) == (2_921_569_805, 0)
    made.take_stats(stats(2.0, **complete("BTCUSDT", 90, 100)), NOW_MS + 2_000, NOW_MS + 2_001)
    assert made.rows[1].waiting == 10


def test_a_reading_that_was_kept_counts_once() -> None:
    """The engine gives the same reading to all who ask within 0.4 s: between two of these nothing passed."""
    made = facts(BTC)
    assert made.told is not None
    assert made.told.messages == pytest.approx(100)
    made.take_stats(stats(1.0), NOW_MS + 1_100, NOW_MS + 1_101)
    assert made.told.messages == pytest.approx(100)


def test_engine_to_here_is_corrected_by_the_clocks() -> None:
    # Received 700 us after it was sent, by clocks that are proved to be equal within 1 ms.
    hop = facts(BTC).engine_to_here(NOW_MS)
    assert hop.p50_us is not None
    assert hop.error_us is not None
    assert hop.p50_us == pytest.approx(700, abs=1)
    assert hop.error_us == pytest.approx(1_000, abs=1)


def test_a_break_and_its_end() -> None:
    made, feed = facts(BTC), feed_of(BTC)
    made.take(Control({"type": "disconnected", "reason": "the connection broke"}), feed, NOW_MS)
    assert (made.is_connected, made.reason, made.lost_ms) == (False, "the connection broke", NOW_MS)
    made.take(Control({"type": "subscribed"}), feed, NOW_MS)
    assert (made.is_connected, made.reason) == (True, "")


def test_facts_are_old_when_the_engine_says_nothing_more() -> None:
    made = facts(BTC)
    assert not made.is_stale(NOW_MS + 3_000)
    made.stats_failed("does not answer")
    assert made.is_stale(NOW_MS + 6_000)


def test_as_json() -> None:
    made = facts(BTC, OTHER)
    found = orjson.loads(orjson.dumps(made.as_json(NOW_MS + 1_500)))
    assert (found["type"], found["connected"], found["status"]) == ("facts", True, "ok")
    assert found["messages_per_s"] == pytest.approx(100)
    assert found["lines"] == {"a": "ok", "b": "down"}
    assert found["gaps"] == {"open": 0, "missing": 0, "repaired": 2, "unrepairable": 0}
    assert found["exchange_to_engine_us"] == {"p50": 16_000, "p99": 20_900, "error": 500, "hidden": False}
    assert found["inside_engine_us"]["p50"] == 5
    assert found["engine_to_here_us"]["error"] is not None
    btc, other = found["symbols"]
    assert (btc["symbol"], btc["price"], btc["bid"], btc["enigma"]) == ("BTCUSDT", 64_249.94, 64_249.78, 61.8)
    assert (btc["complete_through_id"], btc["newer_waiting"]) == (2_921_569_805, 0)
    assert list(btc["fib_levels"]) == ["0", "23.6", "38.2", "50", "61.8", "78.6", "100"]
    assert other["symbol"] == "币安人生USDT"


def test_old_facts_are_null_in_json() -> None:
    made = facts(BTC)
    made.stats_failed("does not answer")
    found = made.as_json(NOW_MS + 60_000)
    assert (found["status"], found["reason"], found["gaps"]) == (None, "does not answer", None)
    assert found["inside_engine_us"] is None
    assert found["symbols"][0]["complete_through_id"] is None
    assert found["symbols"][0]["price"] == 64_249.94
