"""Positions of sinks beside their store."""

from pathlib import Path

from tradeback.stores.ports import Position
from tradeback.stores.positions_sqlite import PositionsSqlite


def test_positions_survive_and_do_not_mix(tmp_path: Path) -> None:
    store = PositionsSqlite(tmp_path / "positions.sqlite")
    assert store.load("a") is None
    store.save("a", Position(7, 10))
    store.save("b", Position(7, 1))
    store.save("a", Position(8, 5))
    store.close()
    again = PositionsSqlite(tmp_path / "positions.sqlite")
    assert again.load("a") == Position(8, 5)
    assert again.load("b") == Position(7, 1)
    again.forget("a")
    assert again.load("a") is None
    again.close()
