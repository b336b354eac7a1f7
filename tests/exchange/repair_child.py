"""A process that repairs, to be killed: python -m tests.exchange.repair_child FOLDER REST SEED END_US."""

import asyncio
import sys
from pathlib import Path

from tests.exchange import repairing
from tests.exchange.harness import CLOCK, desk
from tests.exchange.repairing import SYMBOLS, Shop, market, trade_rows
from tradeback.derive.completeness_gap import OPEN
from tradeback.exchange import repair_gaps
from tradeback.exchange.rest import Rest
from tradeback.stores.gaps_sqlite import GapsSqlite

COUNT = 3_000


def is_lost(number: int) -> bool:
    """What no line brings: a large hole, and one in seven elsewhere."""
    return 1_500 <= number < 2_800 or (number % 7 == 0 and number < 3_990)


async def main(folder: Path, endpoint: str, seed: int, end_us: int) -> None:
    """Bring what the lines bring, repair, say "done" when no gap is open any more."""
    repair_gaps.STEP_S, repair_gaps.FLUSH_S = 0.001, 0.02
    trades = market(COUNT, seed=seed, pause_us=1_000, end_us=end_us)
    store, rest = GapsSqlite(folder / "gaps.sqlite"), Rest(endpoint, CLOCK)
    with desk(folder, symbols=SYMBOLS) as made:
        made.intake.readers.clear()
        running = Shop(made, store, rest).start()
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        made.intake.admit(trade_rows([trade for trade in trades if not is_lost(trade.id)]))
        ledger = running.keeper.ledger
        while not running.failed:
            await asyncio.sleep(0.005)
            through = ledger.complete_through(1)
            if through is not None and through[0] == trades[-1].id and not ledger.gaps(OPEN):
                break
        await running.stop()
        await rest.close()
        store.close()
    sys.stdout.write("done\n")


if __name__ == "__main__":
    assert repairing.CONFIG.gap_after_s < 1
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
