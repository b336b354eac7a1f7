"""processes.ledger: it proves what the engine's ledger proves, from its store and the tape behind it."""

from pathlib import Path

import numpy as np

from tests.api.history_world import BEGIN_S, trades
from tradeback.derive.completeness import Completeness
from tradeback.model.config import TapeConfig
from tradeback.processes.ledger import ReadLedger
from tradeback.stores.gaps_sqlite import GapsSqlite
from tradeback.stores.ports import Position
from tradeback.tape.reader import TapeReader
from tradeback.tape.writer import Tape

IDS = [number for number in range(1, 101) if number not in (40, 41)]


def proved(ledger: Completeness, first: int, last: int) -> bool:
    return bool(ledger.proved(1, np.array([first]), np.array([last]))[0])


def check(ledger: Completeness) -> None:
    assert proved(ledger, 2, 38)
    assert not proved(ledger, 2, 39)
    assert not proved(ledger, 42, 50)
    assert proved(ledger, 43, 98)


def test_it_goes_on_from_the_store(tmp_path: Path) -> None:
    rows = trades([BEGIN_S + number for number in IDS], ids=IDS)
    with Tape.open(tmp_path / "tape", TapeConfig(hot_rows=1 << 12)) as tape:
        tape.append(rows)
        reader, end = TapeReader(tmp_path / "tape"), tape.next_sequence
        for stored in (1, 45, len(rows)):
            engine = Completeness(0)
            engine.feed(rows[:stored], 1)
            engine.sweep(int(2e18))
            store = GapsSqlite(tmp_path / "gaps.sqlite")
            store.write(*engine.changes(), Position(tape.epoch, stored))
            store.close()
            mine = ReadLedger(0.001)
            mine.restore(tmp_path, reader, end)
            check(mine.ledger)
            more = trades([BEGIN_S + 101, BEGIN_S + 39.5], ids=[101, 40])
            mine.feed(more, end)
            assert proved(mine.ledger, 2, 39)
            assert mine.ledger.fills == 1


async def test_without_a_store_it_begins_with_what_it_reads(tmp_path: Path) -> None:
    with Tape.open(tmp_path / "tape", TapeConfig(hot_rows=1 << 12)) as tape:
        tape.append(trades([BEGIN_S], first_id=1))
        reader = TapeReader(tmp_path / "tape")
        mine = ReadLedger(1.0)
        mine.restore(tmp_path, reader, tape.next_sequence)
        assert mine.ledger.span(1) is None
        GapsSqlite(tmp_path / "gaps.sqlite").close()
        mine.restore(tmp_path, reader, tape.next_sequence)
        assert mine.ledger.span(1) is None
        mine.feed(trades([BEGIN_S + 1, BEGIN_S + 2, BEGIN_S + 3], first_id=2), 2)
        assert proved(mine.ledger, 3, 3)


async def test_many_records_are_judged_now_and_then() -> None:
    mine = ReadLedger(0.001)
    for block in range(12):
        first = 1 + block * 10_100
        mine.feed(trades([BEGIN_S + block] * 10_000, first_id=first), 1 + block * 10_000)
    assert mine.ledger.gaps(), "suspicions have become gaps, so they do not pile up"
