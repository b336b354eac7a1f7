"""stores.settlements_sqlite."""

from dataclasses import replace
from pathlib import Path

import pytest

from tradeback.stores.settlements_sqlite import INCOMPLETE, SETTLED, Settlement, SettlementsSqlite


@pytest.fixture
def store(tmp_path: Path) -> SettlementsSqlite:
    return SettlementsSqlite(tmp_path / "settlements.sqlite")


def one(number: int, **more: object) -> Settlement:
    made = Settlement(f"id{number}", "me", 1, "BTCUSDT", 1_000 + number, number)
    return replace(made, **more)  # type: ignore[arg-type]


def test_everything_comes_back(store: SettlementsSqlite) -> None:
    waiting = one(1)
    settled = one(2, status=SETTLED, settled_ns=5, price=0.1, trade_id=7, trade_ms=999, proof='{"a":1}')
    lost = one(3, status=INCOMPLETE, settled_ns=6, reason="gone", owner="")
    store.put([waiting, settled, lost], 10)
    assert [store.find(held.id) for held in (waiting, settled, lost)] == [waiting, settled, lost]
    assert store.find("none") is None
    assert store.waiting() == [waiting]
    assert store.of_owner("me", 10) == [settled, waiting]
    assert store.of_owner("me", 1) == [settled]
    assert store.same("me", 1, 1_001) == waiting
    assert store.same("you", 1, 1_001) is None
    store.put([replace(waiting, status=SETTLED, settled_ns=9, price=2.0)], 10)
    assert store.waiting() == []
    store.close()


def test_the_newest_are_kept_and_those_that_wait_always(store: SettlementsSqlite) -> None:
    store.put([one(number, status=SETTLED, settled_ns=number) for number in range(1, 31)], 10)
    store.put([one(40)], 10)
    assert [store.find(f"id{number}") is None for number in (1, 20, 21, 30, 40)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    store.put([one(31, status=SETTLED, settled_ns=31)], 10)
    assert store.find("id21") is None
    assert store.find("id40") is not None
    store.close()
