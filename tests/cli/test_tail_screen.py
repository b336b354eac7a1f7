"""cli.tail_screen: the same facts on any width, by the page's names, and never wider or higher than told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from tests.cli.tail_world import BTC, NOW_MS, OTHER, complete, facts, feed_of, stats
from tradeback.cli import tail_screen
from tradeback.cli.tail_facts import Facts
from tradeback.cli.tail_screen import flow, gap_cell, hop_cell, screen
from tradeback.client import Control, FeedSymbol
from tradeback.client.stats import Hop

THEN_MS = NOW_MS + 1_500
NAMES = ("Rate", "Exchange → engine", "Inside the engine", "Engine → here", "Lines A", "Gaps")
FIGURES = ("64,249.94", "61.80", "2,921,569,805", "100 msg/s", "± 500 µs", "one clock", "0 open, 2 repaired")


def text(made: Facts, width: int, height: int, now_ms: float = THEN_MS) -> str:
    return "\n".join(line.plain for line in screen(made, width, height, now_ms))


@pytest.mark.parametrize("width", [60, 79, 120, 200])
def test_one_symbol_has_everything_on_any_width(width: int) -> None:
    shown = text(facts(BTC), width, 40)
    for words in (
        *NAMES,
        *FIGURES,
        "Complete through",
        "every trade so far",
        "low 10,000.00",
        "bid 64,249.78",
    ):
        assert words in shown, words
    for level in ("0 % 100,000.00", "23.6 % 78,760.00", "50 % 55,000.00", "100 % 10,000.00"):
        assert level in shown, level
    assert shown.startswith("● live   http://127.0.0.1:8080   engine ok")


@pytest.mark.parametrize("width", [112, 160])
def test_several_symbols_are_a_table_where_it_fits(width: int) -> None:
    lines = text(facts(BTC, OTHER), width, 20).split("\n")
    (head,) = (line for line in lines if line.startswith("symbol"))
    for title in ("price", "trades/s", "Enigma", "Fib below", "Fib above", "complete through"):
        assert title in head
    assert ("bid" in head) == (width == 160)
    (row,) = (line for line in lines if line.startswith("BTCUSDT ") and "Fibonacci" not in line)
    for words in ("64,249.94", "61.80", "50 % 55,000.00", "38.2 % 65,620.00", "2,921,569,805"):
        assert words in row
    assert any(line.startswith("币安人生USDT   Fibonacci 0 %") for line in lines), "few symbols: all levels"
    place = lines.index(head)
    table = [Text(line).cell_len for line in lines[place : place + 3]]
    assert len(set(table)) == 1, "columns stand below each other, wide letters or not"


def test_several_symbols_stand_below_each_other_where_it_is_narrow() -> None:
    shown = text(facts(BTC, OTHER), 50, 60)
    assert shown.count("Complete through") == 2
    assert shown.count("Fibonacci") == 2


def test_what_does_not_fit_is_counted() -> None:
    symbols = [FeedSymbol(number, f"COIN{number}USDT", 2, 5) for number in range(1, 31)]
    for width in (60, 160):
        lines = text(facts(*symbols), width, 14).split("\n")
        assert 10 < len(lines) <= 14
        shown = sum("COIN" in line for line in lines)
        assert lines[-1] == f"{30 - shown} more, quieter"


@given(st.integers(1, 220), st.integers(1, 50), st.integers(0, 9), st.booleans())
def test_never_wider_or_higher_than_told(width: int, height: int, count: int, lost: bool) -> None:
    symbols = [FeedSymbol(number, f"币安{number}USDT", 2, 5) for number in range(1, count + 1)]
    made = facts(*symbols)
    if lost:
        made.take(Control({"type": "disconnected", "reason": "x" * 300}), feed_of(), THEN_MS)
    lines = screen(made, width, height, THEN_MS)
    assert 1 <= len(lines) <= height
    assert max(line.cell_len for line in lines) <= width


def test_a_feed_that_is_lost_says_so_and_since_when() -> None:
    made = facts(BTC)
    made.take(Control({"type": "disconnected", "reason": "closed by the engine: 1012"}), feed_of(), NOW_MS)
    made.stats_failed("does not answer")
    shown = text(made, 150, 20, NOW_MS + 12_345)
    assert "● lost 12.3 s: closed by the engine: 1012; connecting again" in shown
    assert "engine: does not answer" in shown
    assert "64,249.94" in shown, "the last price stays"
    for old in ("100 msg/s", "2 repaired", "2,921,569,805", "± 500"):
        assert old not in shown, "old figures are not shown as new ones"


def test_an_engine_in_trouble() -> None:
    made = facts(BTC)
    troubles = [{"name": "store:series", "state": "degraded", "last_error": "x"}]
    more = {"status": "degraded", "troubles": troubles, **complete("BTCUSDT", 90, 100)}
    gaps = {"open": 1, "missing": 9, "repaired": 2, "unrepairable": 3}
    made.take_stats(stats(2.0, gaps=gaps, **more), NOW_MS + 2_000, NOW_MS + 2_001)
    shown = text(made, 200, 20, NOW_MS + 2_100)
    assert "engine degraded (store:series degraded)" in shown
    assert "1 open, 9 ids missing, 2 repaired, 3 lost" in shown
    assert "90, 12:14:43 UTC, 10 newer wait" in shown or "10 newer wait" in shown
    assert "Lines A ok B down, A first 75 %" in shown


@pytest.mark.parametrize(
    ("hop", "words"),
    [
        (Hop(14_000, 20_000, 400), "14.0 ms, p99 20.0 ms, ± 400 µs"),
        (Hop(300, 900, 400), "< 700 µs, p99 900 µs, ± 400 µs"),
        (Hop(-300, 900, 400), "< 400 µs, p99 900 µs, ± 400 µs"),
        (Hop(14_000, 20_000, None), "14.0 ms, p99 20.0 ms, clocks not compared"),
        (Hop(None, None, 400), "–, ± 400 µs"),
        (Hop(None, None), "–"),
        (Hop(5_000, 9_000, 400, hidden=True), "< 5.40 ms, p99 9.00 ms, ± 400 µs"),
        (Hop(5, 9, None, hidden=True), "–, the exchange's clock is ahead of the engine's"),
    ],
)
def test_a_latency_says_how_well_it_is_known(hop: Hop, words: str) -> None:
    assert hop_cell("x", hop).plain == f"x {words}"


def test_gaps_that_are_not_known_yet() -> None:
    assert gap_cell(None).plain == "Gaps – open"


def test_cells_are_never_broken() -> None:
    cells = [Text("a" * 5), Text("b" * 5), Text("c" * 30), Text("d")]
    assert [line.plain for line in flow(cells, 13)] == ["aaaaa   bbbbb", "c" * 30, "d"]


def test_nobody_sends_commands_to_the_terminal() -> None:
    made = facts(FeedSymbol(1, "EVIL\x1b[2J", 2, 5))
    made.take(Control({"type": "disconnected", "reason": "\x1b]0;title\x07"}), feed_of(), NOW_MS)
    assert "\x1b" not in text(made, 200, 20)
    assert tail_screen.plain("a\x1b[2J\u2028b") == "a?[2J?b"
