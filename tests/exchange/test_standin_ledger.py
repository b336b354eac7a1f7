"""Stand-ins beside repair: the last resort, and never twice."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from tests.derive.world import NAMES, Trade, seen_slots, slots
from tests.exchange.harness import CLOCK, until
from tests.exchange.repairing import Books, Shop, aggregates, market, shop, trade_rows
from tradeback.derive.completeness_gap import OPEN, UNREPAIRABLE
from tradeback.exchange import repair, repair_gaps, standin
from tradeback.exchange.backoff import Backoff
from tradeback.exchange.standin import StandIns
from tradeback.model.record import STAND_IN, TRADE, Rows


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair_gaps, "STEP_S", 0.001)
    monkeypatch.setattr(repair, "RETRY", Backoff(0.002, 0.01))
    monkeypatch.setattr(repair, "ABSENT_AGAIN_S", 0.002)


def judge_of(running: Shop, start: int = 1) -> StandIns:
    return StandIns(running.desk.intake, running.desk.symbols, 0.000_001, start, running.keeper.ledger)


async def judge_all(judge: StandIns, running: Shop) -> None:
    """Until it has seen the whole tape and nothing changes any more."""
    running.keeper.catch_up()
    for _ in range(1000):
        more = judge.step(CLOCK.wall_ns() + 10**9)
        await judge.look_up()
        if not more:
            break
    judge.step(CLOCK.wall_ns() + 10**9)
    await judge.look_up()


def stood_in(running: Shop) -> Rows:
    rows = running.held
    found: Rows = rows[rows["flags"] & STAND_IN != 0]
    return found


def volume(running: Shop) -> Decimal:
    rows = running.held
    trades = rows[rows["kind"] == TRADE]
    return sum((Decimal(f"{quantity:.4f}") for quantity in trades["quantity"].tolist()), Decimal(0))


def true_volume(trades: list[Trade]) -> Decimal:
    return sum((Decimal(trade.quantity) for trade in trades), Decimal(0))


def without(trades: list[Trade], lost: set[int]) -> Rows:
    return trade_rows([trade for trade in trades if trade.id not in lost])


async def test_they_wait_for_repair_and_then_none_is_needed(tmp_path: Path) -> None:
    trades = market(300)
    books = Books(trades)
    books.behind = 300
    async with shop(tmp_path, books) as running:
        running.desk.intake.admit(without(trades, set(range(1100, 1200))))
        running.desk.intake.admit(aggregates(trades))
        judge = judge_of(running)
        running.start()
        await until(lambda: running.keeper.ledger.gaps(OPEN) and running.repair.pages)
        await judge_all(judge, running)
        assert len(stood_in(running)) == 0
        assert len(judge._waiting) == 34
        books.behind = 0
        await running.settled()
        await judge_all(judge, running)
        assert len(stood_in(running)) == len(judge._waiting) == 0
        assert judge.certified == 100
        assert volume(running) == true_volume(trades)


async def test_they_come_for_what_was_given_up_and_for_nothing_else(tmp_path: Path) -> None:
    trades = market(300)
    books = Books(trades)
    books.hidden = {1003, 1100, 1101, 1102, 1105, 1107, 1297}
    async with shop(tmp_path, books) as running:
        running.desk.intake.admit(without(trades, books.hidden | set(range(1090, 1200))))
        running.desk.intake.admit(aggregates(trades))
        judge = judge_of(running)
        running.start()
        await running.settled(2)
        await until(lambda: len(running.keeper.ledger.gaps(UNREPAIRABLE)) == 3)
        for _ in range(2):  # again, from the start: nothing more
            await judge_all(judge, running)
            assert sum(int(count) for count in stood_in(running)["ask_quantity"]) == 7
            assert volume(running) == true_volume(trades)
            judge = judge_of(running)
        assert sorted(running.ids()) == [trade.id for trade in trades if trade.id not in books.hidden]
        for index, name in enumerate(NAMES):  # count and volume of every bar; prices are the aggregates'
            made, wanted = seen_slots(running.derived, 1, index), slots(trades, name)
            if name in ("1h", "4h", "1d"):
                assert sum(bar.trade_count for bar in made.values()) == len(trades)
                assert sum(bar.volume for bar in made.values()) == true_volume(trades)
                assert made.keys() == wanted.keys()
        # A late line brings one of them after all: it is dropped, for its volume is there already.
        assert running.desk.intake.admit(without(trades, {t.id for t in trades} - {1105})) == 0


async def test_a_hole_beyond_the_bounds_gets_its_volume_from_aggregates(tmp_path: Path) -> None:
    """Engine down: aggregates are cheap and come whole, of the trades only the newest."""
    trades = market(3_000, pause_us=10_000)
    aggs = aggregates(trades)
    async with shop(tmp_path, Books(trades, aggs), repair_max_trades=300) as running:
        lost = set(range(1300, 3700))
        running.desk.intake.admit(without(trades, lost))
        gone = (aggs["ask"] >= 1300) & (aggs["ask_quantity"] < 3700)
        running.desk.intake.admit(aggs[~gone])
        judge = judge_of(running)
        running.start()
        await running.settled(2)
        assert running.repaired() == list(range(3400, 3700))
        for _ in range(40):
            await judge_all(judge, running)
        assert sum(int(count) for count in stood_in(running)["ask_quantity"]) == 2100
        assert volume(running) == true_volume(trades)
        bars = running.derived.bars_open(1, NAMES.index("1d"))
        assert int(bars["trade_count"].sum()) == 3000


async def test_too_many_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standin, "WAITING_MAX", 10)
    trades = market(300)
    async with shop(tmp_path, Books([])) as running:
        running.desk.intake.admit(without(trades, set(range(1100, 1200))))
        running.desk.intake.admit(aggregates(trades))
        judge = judge_of(running)
        await judge_all(judge, running)
        assert (len(judge._waiting), judge.let_go) == (10, 24)
        names = {family.name: family.samples[0][1] for family in judge.collect()}
        assert names["tradeback_aggregates_waiting"] == 10
        assert names["tradeback_aggregates_let_go"] == 24
        assert np.all(running.held["flags"] & STAND_IN == 0)


async def test_who_waited_when_the_engine_was_killed_waits_again(tmp_path: Path) -> None:
    """Long behind the aggregates, further than a start reads back."""
    trades = market(300)
    lost = set(range(1100, 1200))
    books = Books(trades)
    async with shop(tmp_path, books) as running:
        running.desk.intake.admit(without(trades, lost))
        running.desk.intake.admit(aggregates(trades))
        running.keeper.step()
        judge = judge_of(running)
        await judge_all(judge, running)
        assert len(judge._waiting) == 34
    books.hidden = set(range(1150, 1200))
    async with shop(tmp_path, books) as running:
        assert [gap.name for gap in running.keeper.ledger.gaps(OPEN)] == [(1100, 1199)]
        judge = judge_of(running, running.desk.tape.next_sequence)
        assert judge.restore() == 34, "1099 to 1101 up to 1198 to 1200"
        assert judge_of(running).restore() == 0, "they are behind its cursor"
        await judge_all(judge, running)
        assert len(stood_in(running)) == 0
        running.start()
        await until(lambda: running.keeper.ledger.gaps(UNREPAIRABLE))
        await judge_all(judge, running)
        assert sum(int(count) for count in stood_in(running)["ask_quantity"]) == 50
        assert volume(running) == true_volume(trades)


async def test_what_was_given_up_right_before_the_end_gets_its_volume(tmp_path: Path) -> None:
    trades = market(300)
    lost = set(range(1100, 1200))
    async with shop(tmp_path, Books([])) as running:
        running.desk.intake.admit(without(trades, lost))
        running.desk.intake.admit(aggregates(trades))
        running.keeper.step()
        (gap,) = running.keeper.ledger.gaps(OPEN)
        running.keeper.ledger.give_up(gap, CLOCK.wall_ns())
    async with shop(tmp_path, Books([])) as running:
        judge = judge_of(running, running.desk.tape.next_sequence)
        assert judge.restore() == 34
        for _ in range(2):
            await judge_all(judge, running)
            assert sum(int(count) for count in stood_in(running)["ask_quantity"]) == 100
        assert volume(running) == true_volume(trades)
        judge = judge_of(running, running.desk.tape.next_sequence)
        assert judge.restore() == 0, "they have it"


async def test_an_empty_tape_has_nobody_who_waits(tmp_path: Path) -> None:
    async with shop(tmp_path, Books([])) as running:
        assert judge_of(running).restore() == 0
