"""The sink against a real tape and a real store: restarts, slow and broken stores, answers while flushing."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.derive.world import (
    NAMES,
    Trade,
    expected_of,
    feed,
    make_trades,
    rows_of,
    seen,
    slots,
    stable,
    symbol,
)
from tests.sinks.gate import Gate
from tests.tape.helpers import config, flip
from tradeback.derive import state as state_module
from tradeback.derive.bars import complete_mask
from tradeback.derive.layout import RESOLUTION_COUNT
from tradeback.derive.state import Derived
from tradeback.model.errors import TradebackError
from tradeback.model.record import Rows
from tradeback.ops.exposition import render
from tradeback.sinks.series import SeriesSink
from tradeback.sinks.series_replay import restore
from tradeback.stores.series_sqlite import SeriesSqlite
from tradeback.tape.writer import Tape

ALWAYS = (0, 1 << 40)
MINUTE = NAMES.index("1m")


class Engine:
    """Tape, state, store and sink, wired as the engine wires them."""

    def __init__(self, folder: Path, symbols: int = 2, **tape: Any) -> None:
        self.tape = Tape.open(folder / "tape", config(rows_per_segment=100, **tape))
        self.store = SeriesSqlite(folder / "series.sqlite")
        self.derived = Derived(symbols)
        for symbol_id in range(1, symbols + 1):
            self.derived.add_symbol(symbol(symbol_id))
        self.restored = restore(self.derived, self.store, self.tape, self.tape.next_sequence)
        self.sink = SeriesSink(self.derived, self.store, self.tape, flush_interval_s=3600.0)

    def take(self, rows: Rows) -> None:
        for start in range(0, len(rows), 64):
            self.tape.append(rows[start : start + 64])
            feed(self.derived, rows[start : start + 64])

    async def flush(self) -> None:
        while (flight := self.sink.flush()) is not None:
            await flight

    def kill(self) -> None:
        """End as by kill -9: what was not flushed is on the tape only."""
        for pool in (self.sink._writer, self.sink._reader):
            pool.shutdown(wait=True)
        self.store.close()
        self.tape.close()

    async def close(self) -> None:
        await self.sink.close()
        self.store.close()
        self.tape.close()


@pytest.fixture
def rows() -> Rows:
    trades = make_trades(11, 900, symbols=2)
    random.Random(3).shuffle(trades)
    return rows_of(trades)


def whole(rows: Rows, symbols: int = 2) -> Derived:
    derived = Derived(symbols)
    for symbol_id in range(1, symbols + 1):
        derived.add_symbol(symbol(symbol_id))
    feed(derived, rows)
    return derived


async def assert_same(engine: Engine, rows: Rows) -> None:
    straight = whole(rows)
    states, wanted = engine.derived.latest_all(), straight.latest_all()
    for name in states.dtype.names or ():
        assert name == "dirty" or states[name].tobytes() == wanted[name].tobytes(), name
    for symbol_id in (1, 2):
        for index in range(RESOLUTION_COUNT):
            opened = engine.derived.bars_open(symbol_id, index)
            assert opened.tobytes() == straight.bars_open(symbol_id, index).tobytes()
            answer = await engine.sink.bars(symbol_id, index, *ALWAYS, 100_000)
            assert stable(answer.rows) == stable(seen(straight, symbol_id, index))
            assert answer.complete.tolist() == complete_mask(answer.rows).tolist()


@pytest.mark.parametrize("seed", range(6))
async def test_killed_anywhere_it_goes_on_as_if_never_interrupted(
    tmp_path: Path, rows: Rows, seed: int
) -> None:
    rng = random.Random(seed)
    engine, at = Engine(tmp_path), 0
    while at < len(rows):
        step = rng.randrange(1, 200)
        engine.take(rows[at : at + step])
        at += step
        if rng.random() < 0.4:
            await engine.flush()
        if rng.random() < 0.4:
            engine.kill()
            engine = Engine(tmp_path)
            assert engine.restored.how in ("new", "resumed")
            assert engine.restored.first_sequence + engine.restored.records == engine.tape.next_sequence
            assert engine.restored.gone == 0
    await assert_same(engine, rows)
    await engine.close()
    engine = Engine(tmp_path)
    assert (engine.restored.how, engine.restored.records) == ("resumed", 0)
    await assert_same(engine, rows)
    await engine.close()


async def test_a_store_of_another_tape_is_rebuilt(tmp_path: Path, rows: Rows) -> None:
    engine = Engine(tmp_path)
    engine.take(rows[:300])
    await engine.close()
    (tmp_path / "tape").rename(tmp_path / "elsewhere")
    engine = Engine(tmp_path)
    assert engine.restored.how == "rebuilt"
    assert engine.restored.reason
    engine.take(rows)
    await engine.flush()
    await assert_same(engine, rows)
    await engine.close()


async def test_a_tape_cut_behind_the_store_leads_to_a_rebuild(tmp_path: Path, rows: Rows) -> None:
    engine = Engine(tmp_path)
    engine.take(rows[:300])
    await engine.close()
    last = sorted((tmp_path / "tape").glob("*.tape"))[-1]
    flip(last, -64 * 5)  # record 296 is damaged: what follows is cut, and a new epoch begins
    engine = Engine(tmp_path)
    kept = engine.tape.next_sequence - 1
    assert kept < 300
    assert (engine.restored.how, engine.restored.records) == ("rebuilt", kept)
    assert engine.restored.reason
    await engine.flush()
    straight = whole(rows[:kept])
    for index in range(RESOLUTION_COUNT):
        held = (await engine.sink.bars(1, index, *ALWAYS, 100_000)).rows
        wanted = seen(straight, 1, index)
        # Bars of which the tape has no trade at all any more stay as they were.
        assert stable(held[np.isin(held["slot_us"], wanted["slot_us"])]) == stable(wanted)
        assert len(held) >= len(wanted)
    await engine.close()


async def test_records_gone_by_retention_are_named_and_the_state_goes_on(tmp_path: Path, rows: Rows) -> None:
    engine = Engine(tmp_path)
    engine.take(rows[:150])
    await engine.flush()
    engine.take(rows[150:450])
    engine.kill()
    for path in (tmp_path / "tape").iterdir():
        if path.name[:20].isdigit() and int(path.name[:20]) < 300:
            path.unlink()
    engine = Engine(tmp_path)
    oldest = engine.tape.oldest_sequence
    assert oldest > 151
    assert (engine.restored.how, engine.restored.gone) == ("resumed", oldest - 151)
    assert f"151 to {oldest - 1}" in engine.restored.reason
    kept = np.concatenate([rows[:150], rows[oldest - 1 : 450]])
    await assert_same(engine, kept)
    await engine.close()


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    engine.store.close()
    engine.store = Gate(tmp_path / "series.sqlite")
    engine.sink = SeriesSink(engine.derived, engine.store, engine.tape, flush_interval_s=3600.0)
    yield engine
    engine.kill()


async def test_answers_hold_each_trade_once_while_a_flush_is_in_flight(gated: Engine, rows: Rows) -> None:
    gate = gated.store
    assert isinstance(gate, Gate)
    gated.take(rows[:300])
    await gated.flush()
    gated.take(rows[300:500])
    gate.open.clear()
    flight = gated.sink.flush()
    assert flight is not None
    assert gated.sink.flush() is flight
    assert gated.derived.closed_count == 0, "all is on its way"
    assert gated.sink.stored.sequence == 300
    gated.take(rows[500:700])
    await assert_same(gated, rows[:700])
    gate.open.set()
    await flight
    assert gated.sink.stored.sequence == 500
    await assert_same(gated, rows[:700])


async def test_answers_stay_right_while_flushes_overtake_them(gated: Engine, rows: Rows) -> None:
    gate = gated.store
    assert isinstance(gate, Gate)
    gated.take(rows[:500])
    gate.readable.clear()
    asked = asyncio.create_task(gated.sink.bars(1, MINUTE, *ALWAYS, 100_000))
    await asyncio.to_thread(gate.reading.wait, 10)
    gated.take(rows[500:600])
    await gated.flush()  # moves what the answer has seen in memory into the store
    gate.readable.set()
    answer = await asked
    assert stable(answer.rows) == stable(seen(whole(rows[:600]), 1, MINUTE))


async def test_a_store_that_refuses_is_retried_and_nothing_is_lost(gated: Engine, rows: Rows) -> None:
    gate = gated.store
    assert isinstance(gate, Gate)
    gated.take(rows[:300])
    gate.broken = True
    flight = gated.sink.flush()
    assert flight is not None
    await flight
    health = gated.sink.health()
    assert health.state == "degraded"
    assert health.last_error == "no space left on device"
    gated.take(rows[300:600])
    await assert_same(gated, rows[:600])
    gate.broken = False
    await gated.flush()
    assert gated.sink.health().state == "ok"
    assert gate.position().sequence == 600
    await assert_same(gated, rows[:600])
    assert gated.derived.closed_count == 0


async def test_a_write_that_fails_after_its_commit_is_not_counted_twice(gated: Engine, rows: Rows) -> None:
    gate = gated.store
    assert isinstance(gate, Gate)
    gated.take(rows[:400])
    gate.failing_after = True
    flight = gated.sink.flush()
    assert flight is not None
    await flight
    gate.failing_after = False
    await gated.flush()
    await assert_same(gated, rows[:400])


async def test_after_an_overflow_the_store_is_brought_up_to_date_from_the_tape(
    gated: Engine, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = gated.store
    assert isinstance(gate, Gate)
    gated.take(rows[:100])
    await gated.flush()
    monkeypatch.setattr(state_module, "PENDING_BARS_MAX", 40)
    gate.broken = True
    for start in range(100, 700, 50):
        gated.take(rows[start : start + 50])
        flight = gated.sink.flush()
        assert flight is not None
        await flight
        gated.derived.closed(1, 0)  # makes the state count what waits
    monkeypatch.undo()
    gate.broken = False
    await gated.flush()
    assert gated.sink.rebuilds == 1
    assert gate.position().sequence == 700
    gated.take(rows[700:])
    await gated.flush()
    await assert_same(gated, rows)


async def test_limits_and_ranges_hold_across_store_and_memory(gated: Engine) -> None:
    base = 1_700_000_000 - 1_700_000_000 % 3600
    world = [Trade(n, (base + n * 20) * 1_000_000, f"{n}.00", "1.0000", False) for n in range(1, 180)]
    own = slots(world, "1m")
    minutes = sorted(own)
    for start in range(0, len(world), 45):
        gated.take(rows_of(world[start : start + 45]))
        if start < 90:
            await gated.flush()
    for first, last, limit in ((0, 60, 100), (5, 40, 10), (0, 60, 1), (58, 60, 5), (10, 12, 2), (30, 30, 5)):
        span = base + first * 60, base + last * 60
        inside = [minute for minute in minutes if span[0] <= minute < span[1]]
        for newest in (False, True):
            answer = await gated.sink.bars(1, MINUTE, *span, limit, newest=newest)
            wanted = inside[-limit:] if newest else inside[:limit]
            assert [int(slot) // 1_000_000 for slot in answer.rows["slot_us"]] == wanted
            assert [expected_of(row) for row in answer.rows] == [own[minute] for minute in wanted]
            proved = [minute not in (minutes[0], minutes[-1]) for minute in wanted]
            assert answer.complete.tolist() == proved


async def test_the_timer_flushes(tmp_path: Path, rows: Rows) -> None:
    engine = Engine(tmp_path)
    engine.sink._interval_s = 0.001
    engine.sink.start()
    engine.take(rows[:100])
    async with asyncio.timeout(10):
        while engine.store.position().sequence < 100:
            await asyncio.sleep(0.001)
    await engine.close()


async def test_metrics_have_names_and_render(gated: Engine, rows: Rows) -> None:
    gated.take(rows[:200])
    text = render(gated.sink.collect()).decode()
    assert "tradeback_series_lag_records 200.0" in text
    assert 'tradeback_derived_records_total{outcome="trades"} 200.0' in text
    await gated.flush()
    text = render(gated.sink.collect()).decode()
    assert "tradeback_series_lag_records 0.0" in text
    assert "tradeback_series_flush_seconds_count 1.0" in text
    assert "tradeback_series_flushes_total 1.0" in text


async def test_a_store_that_cannot_be_read_is_an_error_of_ours(gated: Engine) -> None:
    gated.store.close()
    with pytest.raises(TradebackError, match="cannot be read"):
        await gated.sink.bars(1, MINUTE, *ALWAYS, 10)


async def test_a_closed_sink_says_so(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    await engine.close()
    with pytest.raises(TradebackError, match="closed"):
        await engine.sink.bars(1, MINUTE, *ALWAYS, 10)
