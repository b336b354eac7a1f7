"""exchange.intake: what is learnt from the tape, and the ways in beside the kernel."""

from pathlib import Path

import numpy as np

from tests.exchange.harness import BTC, ETH, Desk, desk, samples
from tradeback.ingest import context as words
from tradeback.model.record import AGG, LATE, QUOTE, STAND_IN, TRADE, UNWATCHED, Rows, empty_rows


def records(*entries: tuple[int, int, int]) -> Rows:
    """Records of (kind, symbol, id)."""
    rows = empty_rows(len(entries))
    rows["kind"], rows["symbol_id"], rows["id"] = zip(*entries, strict=True)
    rows["price"] = rows["quantity"] = 1.5
    rows["ask"], rows["ask_quantity"] = rows["id"], rows["id"]
    return rows


def ids(world: Desk, kind: int = TRADE, symbol_id: int = BTC.id) -> list[int]:
    rows = world.rows
    wanted = (rows["kind"] == kind) & (rows["symbol_id"] == symbol_id)
    return [int(number) for number in rows["id"][wanted]]


async def test_admit_takes_each_id_once_in_any_order(tmp_path: Path) -> None:
    with desk(tmp_path, hot_rows=2048) as world:
        order = np.random.default_rng(1).permutation(3_000) + 1
        rows = records(*((TRADE, BTC.id, int(number)) for number in order))
        assert world.intake.admit(rows) == 3_000
        assert world.intake.admit(rows) == 0
        assert sorted(ids(world)) == list(range(1, 3_001))
        late = [int(number) for number in world.rows["id"][world.rows["flags"] & LATE != 0]]
        highest = np.maximum.accumulate(order)
        assert late == [int(number) for number, top in zip(order, highest, strict=True) if number < top]


async def test_append_asks_nobody(tmp_path: Path) -> None:
    with desk(tmp_path, hot_rows=1024) as world:
        rows = records(*((TRADE, BTC.id, 5) for _ in range(2_500)))
        assert world.intake.append(rows) == 2_500
        assert ids(world) == [5] * 2_500
        world.check_tape()


async def test_nothing_is_taken_twice_after_a_restart(tmp_path: Path) -> None:
    entries = [(kind, symbol.id, number) for number in range(10, 500)
               for kind in (TRADE, QUOTE, AGG) for symbol in (BTC, ETH) if number % 50]  # fmt: skip
    stand_in = records((TRADE, BTC.id, 100))
    stand_in["flags"], stand_in["ask"], stand_in["ask_quantity"] = STAND_IN, 100, 1
    with desk(tmp_path) as world:
        assert world.intake.admit(records(*entries)) == len(entries)
        assert world.intake.admit(stand_in) == 1
        head = world.tape.next_sequence
    with desk(tmp_path) as again:
        again.seen.append(again.tape.read(1, head))
        for start in range(1, head, 100):
            again.intake.restore(again.tape.read(start, 100))
        assert [value for _, _, value in samples(again.intake) if isinstance(value, int) and value] == []
        assert again.intake.admit(records(*entries)) == 0
        assert again.intake.admit(records((TRADE, BTC.id, 100))) == 0, "it was stood in for"
        # What had not come may still come; what is new is new.
        fills = [(TRADE, BTC.id, 150), (AGG, ETH.id, 200), (QUOTE, ETH.id, 500), (TRADE, ETH.id, 500)]
        assert again.intake.admit(records(*fills)) == 4
        assert again.intake.admit(records((QUOTE, ETH.id, 499))) == 0
        assert again.intake.context.missing_trades(BTC.id) == 7
        assert again.intake.context.counter(words.LATE_FILLS, TRADE) == 1


async def test_a_symbol_that_nobody_asked_for_begins_anew(tmp_path: Path) -> None:
    """Ids that went by are not missing, now and after a restart; the other symbol's are."""
    away = [(TRADE, BTC.id, 10), (AGG, BTC.id, 10), (QUOTE, BTC.id, 10), (TRADE, ETH.id, 10)]
    back = [(TRADE, BTC.id, 90), (AGG, BTC.id, 80), (QUOTE, BTC.id, 9), (TRADE, ETH.id, 12)]
    with desk(tmp_path) as world:
        context = world.intake.context
        assert world.intake.admit(records(*away)) == 4
        world.intake.begin_anew([BTC.id], 77)
        assert world.intake.admit(records(*back)) == 3, "an old quote is old"
        assert world.intake.admit(records(*back)) == 0
        assert (context.missing_trades(BTC.id), context.missing_trades(ETH.id)) == (0, 1)
        assert context.counter(words.SKIPPED_IDS, TRADE) == 1
        (row,) = world.rows[world.rows["kind"] == UNWATCHED]
        assert (row["symbol_id"], row["recv_ns"]) == (BTC.id, 77)
        world.check_tape()
        head = world.tape.next_sequence
    with desk(tmp_path) as again:
        again.seen.append(again.tape.read(1, head))
        again.intake.restore(again.tape.read(1, head))
        context = again.intake.context
        assert (context.missing_trades(BTC.id), context.missing_trades(ETH.id)) == (0, 1)
        assert again.intake.admit(records(*back)) == 0
        assert again.intake.admit(records((TRADE, BTC.id, 91))) == 1
