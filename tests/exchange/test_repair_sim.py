"""Repair against the simulated exchange: lines that lose, REST that lags, errs and limits."""

from pathlib import Path

import pytest

from tests.exchange.harness import CLOCK, desk, until
from tests.exchange.repairing import CONFIG
from tradeback.derive.completeness_gap import AGGS, OPEN, REPAIRED, TRADES
from tradeback.exchange import repair, repair_gaps
from tradeback.exchange.backoff import Backoff
from tradeback.exchange.repair import Repair
from tradeback.exchange.repair_gaps import GapKeeper
from tradeback.exchange.rest import Rest
from tradeback.model.record import AGG, BUYER_MAKER, TRADE
from tradeback.model.symbols import Symbol
from tradeback.sim.config import SimConfig
from tradeback.sim.fault_play import FaultPlay
from tradeback.sim.faults import make_fault
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer

LOSSES = (
    {"kind": "lose", "stream": "*@trade", "chance": 0.05},
    {"kind": "lose", "stream": "*@aggTrade", "chance": 0.05},
)
TROUBLES: dict[str, tuple[dict[str, object], ...]] = {
    "loss": (),
    "lag": ({"kind": "rest_lag", "ms": 1500},),
    "errors": ({"kind": "rest_error", "chance": 0.5}, {"kind": "rest_garbage", "chance": 0.2}),
    "limit": ({"kind": "rest_limit", "for": "1s", "retry_after": "1s"},),
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair_gaps, "STEP_S", 0.005)
    monkeypatch.setattr(repair, "RETRY", Backoff(0.25, 1.0))  # faster would use up the weight
    monkeypatch.setattr(repair, "ABSENT_AGAIN_S", 0.1)


def is_whole(keeper: GapKeeper, symbols: list[Symbol]) -> bool:
    """Nothing is missing, suspected or open."""
    ledger = keeper.ledger
    streams = [(symbol.id, stream) for symbol in symbols for stream in (TRADES, AGGS)]
    return not ledger.gaps(OPEN) and all(
        (through := ledger.complete_through(*one)) is not None
        and (span := ledger.span(*one)) is not None
        and through[0] == span[1]
        for one in streams
    )


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_every_trade_comes_in_the_end(tmp_path: Path, trouble: str) -> None:
    source = Synthetic(3, 3_000.0, seed=7)
    faults = FaultPlay([make_fault(fault) for fault in (*LOSSES, *TROUBLES[trouble])], 3)
    server = await SimServer.start(source, SimConfig(start_after_streams=9), faults=faults)
    symbols = [Symbol(number, name) for number, name in enumerate(source.books, 1)]
    rest = Rest(server.rest_url, CLOCK)
    with desk(tmp_path, symbols=symbols, hot_rows=1 << 16) as made:
        from tradeback.stores.gaps_sqlite import GapsSqlite

        store = GapsSqlite(tmp_path / "gaps.sqlite")
        keeper = GapKeeper(made.intake, store, CLOCK, 0.02, made.log)
        keeper.restore()
        mending = Repair(keeper, made.intake, rest, made.symbols, CLOCK, CONFIG, made.log)
        failed: list[object] = []
        pool = made.pool(server.ws_url, list(source.books))
        try:
            keeper.start(failed.append)
            mending.start(failed.append)
            pool.start(failed.append)
            await until(lambda: keeper.ledger.opened > 30 and mending.repaired_trades > 30, 20)
            await pool.stop()
            failed.clear()
            await until(lambda: is_whole(keeper, symbols), 20)
            assert failed == []
            rows = made.tape.read(1, 1 << 20)
            for symbol in symbols:
                book = source.books[symbol.symbol]
                for kind, stream in ((TRADE, TRADES), (AGG, AGGS)):
                    mine = rows[(rows["kind"] == kind) & (rows["symbol_id"] == symbol.id)]
                    ids = sorted(mine["id"].tolist())
                    through = keeper.ledger.complete_through(symbol.id, stream)
                    assert through is not None
                    assert ids == list(range(ids[0], through[0] + 1)), "each exactly once"
                    assert ids[-1] == through[0]
                truth = {trade.id: trade for trade in book.trades.read(0, 1 << 20)}
                for row in rows[(rows["kind"] == TRADE) & (rows["symbol_id"] == symbol.id)]:
                    trade = truth[int(row["id"])]
                    assert (row["exchange_us"], row["price"], row["quantity"]) == (
                        trade.time_us, trade.price / 1e8, trade.quantity / 1e8,
                    )  # fmt: skip
                    assert bool(row["flags"] & BUYER_MAKER) == trade.is_buyer_maker
            assert keeper.ledger.doubles == keeper.ledger.unrepairable == 0
            assert keeper.ledger.repaired == keeper.ledger.opened
            assert {gap.state for gap in keeper.ledger.gaps(REPAIRED)} <= {REPAIRED}
        finally:
            await mending.stop()
            await keeper.stop()
            await rest.close()
            await server.stop()
            store.close()
