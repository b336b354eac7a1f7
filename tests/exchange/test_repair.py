"""exchange.repair: holes in the ids, a REST that is slow, lies or refuses, kills in the middle."""

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from tests.derive.world import NAMES, Trade, seen_slots, slots
from tests.exchange.harness import until
from tests.exchange.repairing import Books, Shop, aggregates, market, shop, trade_rows
from tradeback.derive.completeness_gap import AGGS, OPEN, REPAIRED, TRADES, UNREPAIRABLE
from tradeback.exchange import repair, repair_gaps
from tradeback.exchange.backoff import Backoff
from tradeback.model.limits import SEEN_WINDOW_IDS
from tradeback.model.record import AGG, GAP, LATE, LINE_REST, LINE_SHIFT, STAND_IN, TRADE, empty_rows
from tradeback.model.record import REPAIRED as REPAIRED_FLAG


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair_gaps, "STEP_S", 0.001)
    monkeypatch.setattr(repair_gaps, "FLUSH_S", 0.01)
    monkeypatch.setattr(repair, "RETRY", Backoff(0.002, 0.01))
    monkeypatch.setattr(repair, "ABSENT_AGAIN_S", 0.002)


def lossy(trades: list[Trade], *lost: range) -> list[Trade]:
    gone = {number for part in lost for number in part}
    return [trade for trade in trades if trade.id not in gone]


def assert_bars(running: Shop, trades: list[Trade]) -> None:
    """Every bar of every resolution is what sorting all trades gives."""
    for index, name in enumerate(NAMES):
        assert seen_slots(running.derived, 1, index) == slots(trades, name), name


async def test_a_hole_is_filled_exactly(tmp_path: Path) -> None:
    trades = market(300)
    async with shop(tmp_path, Books(trades)) as running:
        running.desk.intake.admit(trade_rows(lossy(trades, range(1100, 1150), range(1200, 1201))))
        running.start()
        await running.settled(2)
        assert sorted(running.ids()) == [trade.id for trade in trades]
        assert running.repaired() == [*range(1100, 1150), 1200]
        rows = running.held
        mended = rows[rows["flags"] & REPAIRED_FLAG != 0]
        assert set(mended["flags"] & 0xFE) == {REPAIRED_FLAG | LATE | LINE_REST << LINE_SHIFT}
        truth = {trade.id: trade for trade in trades}
        for row in mended:
            trade = truth[int(row["id"])]
            assert (row["exchange_us"], row["price"], row["quantity"]) == (
                trade.time_us, float(trade.price), float(trade.quantity),
            )  # fmt: skip
            assert bool(row["flags"] & 1) == trade.buyer_maker
        assert_bars(running, trades)
        assert running.repair.pages == 1, "one page reaches both"
        assert running.keeper.ledger.doubles == 0
        gaps = await running.gaps()
        assert [(gap.name, gap.state, gap.missing) for gap in gaps] == [
            ((1100, 1149), REPAIRED, 0), ((1200, 1200), REPAIRED, 0),
        ]  # fmt: skip
        said = rows[rows["kind"] == GAP]
        assert sorted(zip(said["id"].tolist(), said["quantity"].tolist(), strict=True)) == [
            (1100, OPEN), (1100, REPAIRED), (1200, OPEN), (1200, REPAIRED),
        ]  # fmt: skip
        assert running.repair.health().state == running.keeper.health().state == "ok"


@pytest.mark.parametrize("kept", [1, 100])
async def test_older_than_the_arbiters_window(tmp_path: Path, kept: int) -> None:
    """The hole is far behind; some of it lies inside the window, or all outside."""
    trades = market(SEEN_WINDOW_IDS + 3_000, pause_us=1000)
    lost = range(1000 + 3_000 - 2_500, 1000 + 3_000 + kept)
    async with shop(tmp_path, Books(trades)) as running:
        running.desk.intake.admit(trade_rows(lossy(trades, lost)))
        running.start()
        await running.settled()
        assert sorted(running.ids()) == [trade.id for trade in trades]
        assert running.repaired() == list(lost)
        assert_bars(running, trades)
        assert running.repair.pages == -(-len(lost) // 1000)


async def test_what_the_engine_missed_while_it_was_down(tmp_path: Path) -> None:
    trades = market(2_500, pause_us=20_000)
    books = Books(trades)
    async with shop(tmp_path, books) as running:
        running.desk.intake.admit(trade_rows(trades[:700]))
        running.start()
        await until(lambda: running.keeper.cursor == 701)
        assert await running.gaps() == []
    async with shop(tmp_path, books) as running:
        assert running.restored == (1, 0, "")
        running.desk.intake.admit(trade_rows(trades[2_400:]))
        running.start()
        await running.settled()
        assert sorted(running.ids()) == [trade.id for trade in trades]
        (gap,) = await running.gaps()
        assert (gap.name, gap.state) == ((1700, 3399), REPAIRED)
        assert (gap.before_us, gap.after_us) == (trades[699].time_us, trades[2_400].time_us)


async def test_a_database_that_lags_is_asked_again_until_the_ranges_overlap(tmp_path: Path) -> None:
    trades = market(100)
    books = Books(trades)
    books.behind = 60
    async with shop(tmp_path, books) as running:
        running.desk.intake.admit(trade_rows(lossy(trades, range(1030, 1080))))
        running.start()
        await until(lambda: len(books.asked) > 5)
        (gap,) = running.keeper.ledger.gaps(OPEN)
        assert gap.missing == 40, "what it has is taken"
        books.behind = 20  # it ends just before the live ones: the hole is whole, though nothing overlaps
        await until(lambda: running.keeper.ledger.repaired == 1)
        assert sorted(running.ids()) == [trade.id for trade in trades]


async def test_a_lagging_page_never_closes_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "LAG_MAX_US", 20_000)  # else the waits grow with what was slow before
    trades = market(100)
    books = Books(trades)
    books.behind, books.hidden = 40, {1058, 1059}
    async with shop(tmp_path, books) as running:
        running.desk.intake.admit(trade_rows(lossy(trades, range(1050, 1061))))
        running.start()
        await until(lambda: len(books.asked) > 8)
        (gap,) = running.keeper.ledger.gaps(OPEN)
        assert gap.missing == 3, "58 and 59 are not passed by before 60 is there"
        books.behind = 0
        await running.settled()
        (gap,) = running.keeper.ledger.gaps(UNREPAIRABLE)
        assert (gap.name, gap.missing) == ((1050, 1060), 2)
        assert running.repair.absent_ids == 2


async def test_ids_that_the_exchange_does_not_have(tmp_path: Path) -> None:
    trades = market(100)
    books = Books(trades)
    books.hidden = {1020, 1040, 1041}
    async with shop(tmp_path, books) as running:
        running.desk.intake.admit(trade_rows(lossy(trades, range(1020, 1021), range(1030, 1050))))
        running.start()
        await running.settled(2)
        gaps = await running.gaps()
        assert [(gap.name, gap.state, gap.missing) for gap in gaps] == [
            ((1020, 1020), UNREPAIRABLE, 1), ((1030, 1049), UNREPAIRABLE, 2),
        ]  # fmt: skip
        assert set(range(1000, 1100)) - set(running.ids()) == books.hidden
        asked = [int(query["fromId"]) for _, query in books.asked]
        assert asked.count(1020) >= 2, "never on the word of one reading"
        assert await running.gaps(states=(OPEN,)) == []


async def test_an_absence_that_was_a_slip_is_mended(tmp_path: Path) -> None:
    trades = market(100)
    books = Books(trades)
    books.hidden = {1040}
    async with shop(tmp_path, books) as running:
        books.answers = [lambda request: None, lambda request: books.hidden.clear()]
        running.desk.intake.admit(trade_rows(lossy(trades, range(1030, 1050))))
        running.start()
        await running.settled()
        assert sorted(running.ids()) == [trade.id for trade in trades]
        assert running.repair.absent_ids == 0


@pytest.mark.parametrize("status", [429, 418])
async def test_a_limit_is_waited_out(tmp_path: Path, status: int) -> None:
    trades = market(100)
    books = Books(trades)
    books.answers = [lambda request: web.Response(status=status, headers={"Retry-After": "1"}, text="{}")]
    async with shop(tmp_path, books) as running:
        loop = asyncio.get_running_loop()
        running.desk.intake.admit(trade_rows(lossy(trades, range(1030, 1050), range(1060, 1061))))
        running.start()
        await until(lambda: running.repair.last_error)
        begun = loop.time()
        assert running.repair.health().state == "degraded"
        assert str(status) in str(running.repair.last_error)
        running.desk.intake.admit(trade_rows(market(1, first_id=1100)))  # live data goes on
        await running.settled(2)
        assert loop.time() - begun > 0.9
        assert len(books.asked) == 2
        await until(lambda: running.repair.health().state == "ok")  # the gap closes before its page is done


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: web.Response(status=500, text="{}"),
        lambda request: web.Response(text="no json"),
        lambda request: web.Response(text='{"code":-1000}'),
        lambda request: web.Response(text='[{"id":1}]'),
        lambda request: web.json_response([Books.trade(trade) for trade in market(2)[::-1]]),
        lambda request: web.json_response([{**Books.trade(market(1)[0]), "price": "NaN"}]),
        lambda request: web.json_response([{**Books.trade(market(1)[0]), "id": -1}]),
        lambda request: web.json_response([]),
        lambda request: web.json_response([Books.trade(trade) for trade in market(5, first_id=3)]),
    ],
)
async def test_answers_that_help_nothing_are_asked_again(tmp_path: Path, answer: object) -> None:
    trades = market(100)
    books = Books(trades)
    books.answers = [answer] * 3  # type: ignore[list-item]
    async with shop(tmp_path, books) as running:
        running.desk.intake.admit(trade_rows(lossy(trades, range(1030, 1050))))
        running.start()
        await running.settled()
        assert sorted(running.ids()) == [trade.id for trade in trades]
        assert [gap.state for gap in await running.gaps()] == [REPAIRED]


async def test_an_exchange_without_these_pages_ends_the_gap(tmp_path: Path) -> None:
    trades = market(100)
    books = Books(trades)
    books.answers = [lambda request: web.Response(status=404, text="{}")]
    async with shop(tmp_path, books) as running:
        running.desk.intake.admit(trade_rows(lossy(trades, range(1030, 1050))))
        running.start()
        await running.settled()
        (gap,) = running.keeper.ledger.gaps(UNREPAIRABLE)
        assert gap.missing == 20
        (line,) = running.desk.log.of("gap unrepairable")
        assert "404" in line["reason"]


async def test_only_the_newest_of_a_large_hole(tmp_path: Path) -> None:
    trades = market(3_000, pause_us=1000)
    async with shop(tmp_path, Books(trades), repair_max_trades=500) as running:
        running.desk.intake.admit(trade_rows(lossy(trades, range(1500, 3500))))
        running.start()
        await running.settled()
        assert running.repaired() == list(range(3000, 3500))
        (gap,) = await running.gaps()
        assert (gap.name, gap.state, gap.missing) == ((1500, 3499), UNREPAIRABLE, 1500)


async def test_only_what_is_young_enough(tmp_path: Path) -> None:
    trades = market(1_000, pause_us=10_000_000)  # a trade every ten seconds on the average
    books = Books(trades, aggregates(trades))
    async with shop(tmp_path, books, repair_max_age_s=3_600.0) as running:
        running.desk.intake.admit(trade_rows(lossy(trades, range(1100, 1950))))
        running.start()
        await running.settled()
        (floor,) = [query for path, query in books.asked if path == "aggTrades"]
        oldest = next(trade.id for trade in trades if trade.time_us >= 1_000 * int(floor["startTime"]))
        mended = running.repaired()
        assert mended[-1] == 1949
        assert oldest - 3 <= mended[0] <= oldest + 3, "an aggregate holds three"
        (gap,) = running.keeper.ledger.gaps(UNREPAIRABLE)
        assert gap.missing == mended[0] - 1100


async def test_all_of_it_is_too_old(tmp_path: Path) -> None:
    trades = market(100, end_us=1_700_000_000_000_000)
    books = Books(trades)
    async with shop(tmp_path, books) as running:
        running.desk.intake.admit(trade_rows(lossy(trades, range(1030, 1050))))
        running.start()
        await running.settled()
        assert books.asked == []
        assert [gap.missing for gap in running.keeper.ledger.gaps(UNREPAIRABLE)] == [20]


async def test_a_repair_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    trades = market(100, pause_us=100)
    books = Books(trades)
    books.behind = 100
    async with shop(tmp_path, books, repair_max_age_s=0.3) as running:
        running.desk.intake.admit(trade_rows(lossy(trades, range(1030, 1050))))
        running.start()
        await running.settled()
        assert [gap.missing for gap in running.keeper.ledger.gaps(UNREPAIRABLE)] == [20]


async def test_a_dead_trade_line_is_made_up_for_by_aggregates_and_rest(tmp_path: Path) -> None:
    trades = market(120)
    aggs = aggregates(trades)
    async with shop(tmp_path, Books(trades, aggs)) as running:
        running.desk.intake.admit(trade_rows(trades[:60]))
        running.desk.intake.admit(aggs)
        running.start()
        await running.settled()
        assert sorted(running.ids()) == [trade.id for trade in trades]
        assert_bars(running, trades)
        # A line that comes back brings nothing twice.
        assert running.desk.intake.admit(trade_rows(trades[50:])) == 0


async def test_aggregates_are_repaired_too(tmp_path: Path) -> None:
    trades = market(120)
    aggs = aggregates(trades)
    async with shop(tmp_path, Books(trades, aggs)) as running:
        running.desk.intake.admit(trade_rows(trades))
        running.desk.intake.admit(aggs[(aggs["id"] < 60) | (aggs["id"] > 70)])
        running.start()
        await running.settled()
        assert sorted(running.ids(AGG)) == aggs["id"].tolist()
        assert [gap.stream for gap in await running.gaps()] == [AGGS]
        assert running.repair.repaired_aggregates == 11
        rows = running.held
        mended = rows[(rows["kind"] == AGG) & (rows["flags"] & REPAIRED_FLAG != 0)]
        names = ["id", "exchange_us", "price", "quantity", "ask", "ask_quantity"]
        assert mended[names].tolist() == aggs[(aggs["id"] >= 60) & (aggs["id"] <= 70)][names].tolist()


async def test_what_is_stood_in_for_is_not_fetched(tmp_path: Path) -> None:
    trades = market(100)
    books = Books(trades)
    async with shop(tmp_path, books) as running:
        rows = trade_rows(lossy(trades, range(1030, 1040), range(1050, 1055)))
        stand_in = empty_rows(1)
        stand_in[0] = rows[0]
        stand_in["id"], stand_in["ask"], stand_in["ask_quantity"], stand_in["flags"] = (
            1039,
            1030,
            10,
            STAND_IN,
        )
        running.desk.intake.admit(np.concatenate([rows[:30], stand_in, rows[30:]]))
        running.start()
        await running.settled(2)
        assert running.repaired() == list(range(1050, 1055))
        assert [(gap.name, gap.state) for gap in await running.gaps()] == [
            ((1030, 1039), UNREPAIRABLE), ((1050, 1054), REPAIRED),
        ]  # fmt: skip


async def test_small_gaps_do_not_wait_behind_a_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "AT_ONCE", 1)
    large, small = market(9_000, pause_us=1000), market(50, symbol_id=2, pause_us=1000)
    books = Books([*large, *small])
    async with shop(tmp_path, books) as running:
        running.desk.intake.admit(trade_rows(lossy(large, range(1500, 9500))))
        running.start()
        await until(lambda: running.repair.pages == 2)
        running.desk.intake.admit(trade_rows(lossy(small, range(1010, 1020))))
        await until(lambda: running.keeper.ledger.repaired == 1)
        assert running.keeper.ledger.gaps(OPEN)[0].symbol_id == 1
        await running.settled(2)
        assert sorted(running.ids()) == [trade.id for trade in large]
        assert sorted(running.ids(symbol_id=2)) == [trade.id for trade in small]


async def test_live_trades_come_between_the_slices(tmp_path: Path) -> None:
    trades = market(2_100, pause_us=1000)
    async with shop(tmp_path, Books(trades)) as running:
        running.desk.intake.admit(trade_rows(lossy(trades[:2_000], range(1100, 2900))))
        running.start()
        await until(lambda: running.repair.repaired_trades)
        for trade in trades[2_000:]:
            running.desk.intake.admit(trade_rows([trade]))
            await asyncio.sleep(0)
        await running.settled()
        ids = running.ids()
        assert sorted(ids) == [trade.id for trade in trades]
        between = sum(one >= 3000 for one in ids[ids.index(1100) : ids.index(2899)])
        assert between > 5, "the live ones did not wait"
        assert running.keeper.ledger.doubles == 0


async def test_the_other_line_and_rest_bring_the_same(tmp_path: Path) -> None:
    """While the page is on its way a line fills the hole: each trade once."""
    trades = market(100)
    books = Books(trades)
    async with shop(tmp_path, books) as running:

        def meanwhile(request: web.Request) -> None:
            running.desk.intake.admit(trade_rows([trade for trade in trades if 1030 <= trade.id < 1040]))

        books.answers = [meanwhile]
        running.desk.intake.admit(trade_rows(lossy(trades, range(1030, 1050))))
        running.start()
        await running.settled()
        assert sorted(running.ids()) == [trade.id for trade in trades]
        assert running.repaired() == list(range(1040, 1050))
        assert running.keeper.ledger.doubles == 0


@pytest.mark.parametrize("seed", range(4))
async def test_random_losses_and_restarts(tmp_path: Path, seed: int) -> None:
    """Stops at any moment of a repair: no trade twice, every gap closes, bars as from all trades."""
    rng = random.Random(seed)
    trades = market(4_000, seed=seed, pause_us=50_000)
    books = Books(trades)
    books.hidden = {rng.randrange(1000, 5000) for _ in range(3)}
    at = 0
    while at < len(trades):
        async with shop(tmp_path, books, hot_rows=1 << 10) as running:
            running.start()
            for _ in range(3):
                batch = trades[at : at + rng.randrange(1, 300)]
                at += len(batch)
                running.desk.intake.admit(trade_rows([one for one in batch if rng.random() > 0.1]))
                await asyncio.sleep(0.001 * rng.random())
            at += rng.choice((0, 0, rng.randrange(0, 900)))  # down
            await somewhere(running, rng.randrange(3))
    async with shop(tmp_path, books) as running:
        running.start()
        running.desk.intake.admit(trade_rows(market(1, first_id=5000)))
        await running.settled(0)
        await until(lambda: running.keeper.ledger.complete_through(1)[0] == 5000)  # type: ignore[index]
        await running.settled(0)
        ids = running.ids()
        assert len(ids) == len(set(ids))
        first = min(ids)
        gone = set(range(first, 5001)) - set(ids)
        assert gone <= books.hidden
        gaps = await running.gaps()
        assert {gap.state for gap in gaps} <= {REPAIRED, UNREPAIRABLE}
        assert sum(gap.missing for gap in gaps) == len(gone)
        names = [gap.name for gap in gaps if gap.stream == TRADES]
        assert len(names) == len(set(names))


async def somewhere(running: Shop, pages: int) -> None:
    """Some moment of a repair: so many pages on."""
    wanted = running.repair.pages + pages
    ledger = running.keeper.ledger
    await until(lambda: running.repair.pages >= wanted or not ledger.gaps(OPEN))


async def test_numbers_and_words(tmp_path: Path) -> None:
    trades = market(100)
    books = Books(trades)
    books.behind = 100
    async with shop(tmp_path, books) as running:
        running.desk.intake.admit(trade_rows(lossy(trades, range(1030, 1050))))
        running.start()
        await until(lambda: running.repair.pages)
        values = {
            (family.name, *labels.values()): value
            for part in (running.keeper, running.repair)
            for family in part.collect()
            for labels, value in family.samples
        }
        assert values["tradeback_gaps_open", "trade"] == 1
        assert values["tradeback_gap_missing_ids", "trade", "open"] == 20
        assert values["tradeback_gaps_opened",] == 1
        assert values["tradeback_repair_waiting",] == 1
        assert values["tradeback_doubled_ids",] == 0
        assert "1 open gaps, 20 ids missing" in str(running.keeper.health().last_error)
        assert TRADE in running.held["kind"]


async def test_it_ends_also_when_pages_end_at_the_same_moment(tmp_path: Path) -> None:
    trades = market(100)
    for _ in range(6):
        async with shop(tmp_path, Books(trades)) as running:
            running.desk.intake.admit(trade_rows(lossy(trades, range(1030, 1050))))
            running.start()
            await until(lambda: running.repair._busy or running.ids().count(1030))
            async with asyncio.timeout(5):
                await running.repair.stop()
            assert running.repair._main is not None
            assert running.repair._main.done()
        trades = [*trades, *market(100, first_id=trades[-1].id + 1)]
