"""A whole serving side over a real tape, derived series and store."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.feed.harness import SYMBOLS, World, world
from tradeback.model.config import TapeConfig
from tradeback.stores.series_sqlite import SeriesSqlite
from tradeback.tape.reader import TapeReader
from tradeback.tape.writer import Tape


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[World]:
    from tradeback.derive.state import Derived

    derived = Derived()
    for symbol in SYMBOLS:
        derived.add_symbol(symbol)
    series = SeriesSqlite(tmp_path / "series.db")
    with Tape.open(tmp_path / "tape", TapeConfig(hot_rows=1 << 12)) as tape:
        options = {"derived": derived, "series": series, "reader": TapeReader(tmp_path / "tape")}
        async with world(tape=tape, context_options=options) as running:
            yield running
    series.close()
