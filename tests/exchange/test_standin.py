"""exchange.standin: aggregates certify trades, and stand in for those that never came."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.exchange.harness import BTC, ETH, YEN, Desk, agg, desk, running, samples, scripted, trade, until
from tests.exchange.test_line import sends
from tradeback.exchange import standin
from tradeback.exchange.standin import StandIns
from tradeback.model.errors import TapeError
from tradeback.model.record import AGG, BUYER_MAKER, LINE_SHIFT, STAND_IN, TRADE, Rows, empty_rows

SECOND_NS = 1_000_000_000
NOW_NS = 1_781_000_000 * SECOND_NS
GRACE_S = 2.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path) as made:
        yield made


def stand_ins(world: Desk, start: int = 1) -> StandIns:
    return StandIns(world.intake, world.symbols, GRACE_S, start)


def put(world: Desk, *records: tuple[int, int, int, float], recv_ns: int = NOW_NS, symbol: int = 1) -> None:
    """Records of (kind, first trade id, last trade id, quantity); a trade's id is its first."""
    rows = empty_rows(len(records))
    for row, (kind, first, last, quantity) in zip(rows, records, strict=True):
        row["kind"], row["quantity"], row["price"] = kind, quantity, 100.25
        row["id"] = first if kind == TRADE else 1_000_000 + last
        if kind == AGG:
            row["ask"], row["ask_quantity"] = first, last
            row["flags"] = BUYER_MAKER | 1 << LINE_SHIFT
    rows["symbol_id"], rows["recv_ns"], rows["exchange_us"] = symbol, recv_ns, recv_ns // 1_000
    world.intake.admit(rows)


def made_up(world: Desk) -> Rows:
    rows = world.rows
    found: Rows = rows[rows["flags"] & STAND_IN != 0]
    return found


def run(judge: StandIns, now_ns: int = NOW_NS + 3 * SECOND_NS) -> None:
    for _ in range(100):
        if not judge.step(now_ns):
            return
    raise AssertionError("it never comes to an end")


@pytest.mark.parametrize("order", ["trades first", "aggregate first"])
def test_none_when_all_trades_came(world: Desk, order: str) -> None:
    trades = [(TRADE, number, number, 1.0) for number in (10, 11, 12)]
    aggregate = (AGG, 10, 12, 3.0)
    put(world, *([*trades, aggregate] if order == "trades first" else [aggregate, *trades]))
    judge = stand_ins(world)
    run(judge)
    assert len(made_up(world)) == 0
    assert (judge.certified, judge.stood_in) == (1, 0)


def test_not_before_the_grace_has_passed(world: Desk) -> None:
    put(world, (TRADE, 9, 9, 1.0), (AGG, 10, 12, 3.0))
    judge = stand_ins(world)
    run(judge, NOW_NS + int(GRACE_S * SECOND_NS) - 1)
    assert judge.cursor == 1
    # The trades come at the last moment.
    put(world, *((TRADE, number, number, 1.0) for number in (11, 12, 10)), recv_ns=NOW_NS + SECOND_NS)
    run(judge)
    assert len(made_up(world)) == 0
    assert judge.certified == 1


def test_one_for_all_that_are_missing(world: Desk) -> None:
    put(world, (TRADE, 9, 9, 1.0), (AGG, 10, 12, 3.14159))
    judge = stand_ins(world)
    run(judge)
    (row,) = made_up(world)
    assert (row["kind"], row["id"], row["ask"], row["ask_quantity"]) == (TRADE, 12, 10.0, 3.0)
    assert (row["price"], row["quantity"]) == (100.25, 3.14159)
    assert row["exchange_us"] == NOW_NS // 1_000
    assert row["recv_ns"] == NOW_NS
    assert row["flags"] == BUYER_MAKER | STAND_IN | 1 << LINE_SHIFT
    assert (judge.certified, judge.stood_in, judge.trades_stood_in) == (0, 1, 3)
    run(judge)
    assert len(made_up(world)) == 1
    world.check_tape()


def test_only_for_what_is_missing(world: Desk) -> None:
    # 0.1 + 0.2 does not make 0.3 in floats; in lots it does.
    put(world, (TRADE, 9, 9, 1.0), (TRADE, 10, 10, 0.1), (TRADE, 13, 13, 0.2), (AGG, 10, 13, 0.6))
    judge = stand_ins(world)
    run(judge)
    (row,) = made_up(world)
    assert (row["id"], row["ask"], row["ask_quantity"], row["quantity"]) == (12, 11.0, 2.0, 0.3)


def test_a_late_trade_is_dropped(world: Desk) -> None:
    put(world, (TRADE, 9, 9, 1.0), (AGG, 10, 12, 3.0))
    run(stand_ins(world))
    before = world.count
    put(world, *((TRADE, number, number, 1.0) for number in (10, 11, 12)))
    assert world.count == before
    put(world, (TRADE, 13, 13, 1.0))
    assert world.count == before + 1
    assert world.intake.context.missing_trades(BTC.id) == 0


def test_the_volume_is_that_of_the_aggregates(world: Desk) -> None:
    """Any trades lost: trades and stand-ins together have every id once and the whole quantity."""
    rng = np.random.default_rng(3)
    first, whole = 1, 0
    put(world, (TRADE, 0, 0, 1.0))
    for _ in range(200):
        last = first + int(rng.integers(0, 6))
        lots = rng.integers(1, 100_000, last - first + 1)
        whole += int(lots.sum())
        kept = [(TRADE, first + i, first + i, lot / 1e5) for i, lot in enumerate(lots) if rng.random() < 0.6]
        put(world, *kept, (AGG, first, last, int(lots.sum()) / 1e5)) if rng.random() < 0.5 else put(
            world, (AGG, first, last, int(lots.sum()) / 1e5), *kept
        )
        first = last + 1
    judge = stand_ins(world)
    run(judge)
    rows = world.rows
    trades = rows[(rows["kind"] == TRADE) & (rows["id"] > 0)]
    stood = trades["flags"] & STAND_IN != 0
    count = int((~stood).sum()) + int(trades["ask_quantity"][stood].sum())
    assert count == first - 1
    assert round(float(trades["quantity"].sum()) * 1e5) == whole
    assert judge.certified + judge.stood_in == 200
    assert judge.stood_in == stood.sum() > 20
    assert world.intake.context.missing_trades(BTC.id) == 0


def test_what_came_before_the_first_trade_is_not_ours(world: Desk) -> None:
    put(world, (TRADE, 12, 12, 1.0), (AGG, 3, 9, 3.0), (AGG, 10, 12, 3.0))
    judge = stand_ins(world)
    run(judge)
    assert judge.certified == 2
    assert len(made_up(world)) == 0


def test_before_any_trade_aggregates_stand_in(world: Desk) -> None:
    put(world, (AGG, 3, 9, 3.0), symbol=ETH.id)
    put(world, (AGG, 0, 0, 7.0), symbol=YEN.id)
    run(stand_ins(world))
    assert [(int(row["symbol_id"]), int(row["id"])) for row in made_up(world)] == [(ETH.id, 9), (YEN.id, 0)]


def test_stamps_that_do_not_rise(world: Desk) -> None:
    """A young record, then an old stand-in's stamp, then a young aggregate: nothing is judged early."""
    old, young = NOW_NS - 10 * SECOND_NS, NOW_NS
    put(world, (TRADE, 1, 1, 1.0), recv_ns=old)
    for number in range(2, 40):
        put(world, (TRADE, number, number, 1.0), recv_ns=young if number % 3 else old)
    put(world, (AGG, 40, 41, 2.0), recv_ns=old)
    judge = stand_ins(world)
    run(judge, NOW_NS)
    assert judge.cursor == 2, "it stops at the first young one"
    run(judge)
    assert len(made_up(world)) == 1


def test_many_after_an_outage_are_cheap(world: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    put(world, (TRADE, 99, 99, 1.0), (TRADE, 100, 100, 1.0), (AGG, 100, 101, 2.0))
    for number in range(102, 2_102):
        put(world, (AGG, number, number, 0.5))
    searches = []
    search = StandIns._trades

    def counted(self: StandIns, *arguments: int) -> dict[int, tuple[float, int]]:
        searches.append(arguments)
        return search(self, *arguments)

    monkeypatch.setattr(StandIns, "_trades", counted)
    judge = stand_ins(world)
    run(judge)
    assert (judge.stood_in, judge.certified, judge.trades_stood_in) == (2_001, 0, 2_001)
    assert len(searches) == 1
    assert world.intake.context.missing_trades(BTC.id) == 0


def test_a_step_searches_the_tape_a_few_times_only(world: Desk) -> None:
    put(world, (TRADE, 99, 99, 1.0))
    for number in range(100, 200, 2):
        put(world, (TRADE, number, number, 1.0), (AGG, number, number + 1, 3.0))
    judge = stand_ins(world)
    now_ns = NOW_NS + 3 * SECOND_NS
    assert judge.step(now_ns)
    assert judge.stood_in == standin.SEARCHES_PER_STEP
    run(judge)
    assert (judge.stood_in, judge.certified) == (50, 0)
    assert set(made_up(world)["quantity"]) == {2.0}


async def test_a_tape_that_refuses_makes_it_wait(world: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from tradeback.exchange import intake

    monkeypatch.setattr(intake, "RETRY_S", 0.005)
    put(world, (TRADE, 9, 9, 1.0), *((AGG, number, number, 1.0) for number in range(10, 20)))
    commit = world.tape.commit
    full = True

    def refusing(count: int) -> int:
        if full:
            raise TapeError("full")
        return commit(count)

    monkeypatch.setattr(world.tape, "commit", refusing)
    judge = stand_ins(world)
    now_ns = NOW_NS + 3 * SECOND_NS
    for _ in range(5):
        judge.step(now_ns)
    assert judge.stood_in == 1, "it waits in the ring; the next ones wait for it"
    full = False
    await until(lambda: world.intake.stalled is None)
    run(judge)
    assert judge.stood_in == 10
    assert [int(number) for number in made_up(world)["id"]] == list(range(10, 20))
    assert judge.certified == 0


async def test_over_a_connection(world: Desk) -> None:
    frames = [trade(1), agg(1, 1, 1, "2.00010000"), agg(2, 2, 4, "9.12345000"), trade(3), trade(5)]
    async with scripted(sends(*frames)) as exchange, running(world.line(exchange.endpoint)):
        await until(lambda: world.count == 5)
    judge = stand_ins(world)
    run(judge, int(world.rows["recv_ns"][-1]) + 3 * SECOND_NS)
    (row,) = made_up(world)
    assert (row["id"], row["ask"], row["ask_quantity"]) == (4, 2.0, 2.0)
    assert row["quantity"] == pytest.approx(9.12345 - 4.0001, abs=1e-12)
    values = {name: value for name, _, value in samples(judge)}
    assert values == {
        "tradeback_aggregates_certified": 1,
        "tradeback_aggregates_stood_in": 1,
        "tradeback_trades_stood_in": 2,
        "tradeback_aggregate_records_passed_over": 0,
    }
