"""A whole serving side over a real tape, derived series, sink and store."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.feed.harness import SYMBOLS, World, world
from tests.sinks.gate import Gate
from tradeback.model.config import TapeConfig
from tradeback.tape.reader import TapeReader
from tradeback.tape.writer import Tape


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """The store of `served`, whose writes and reads a test may hold up."""
    return Gate(tmp_path / "series.db")


@pytest.fixture
async def served(tmp_path: Path, gate: Gate) -> AsyncIterator[World]:
    from tradeback.derive.state import Derived
    from tradeback.sinks.series import SeriesSink

    derived = Derived()
    for symbol in SYMBOLS:
        derived.add_symbol(symbol)
    with Tape.open(tmp_path / "tape", TapeConfig(hot_rows=1 << 12)) as tape:
        sink = SeriesSink(derived, gate, tape, flush_interval_s=3600.0)
        options = {"derived": derived, "series": sink, "reader": TapeReader(tmp_path / "tape")}
        async with world(tape=tape, context_options=options) as running:
            yield running
        gate.open.set()
        gate.readable.set()
        await sink.close()
    gate.close()
