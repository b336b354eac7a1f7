"""Bars after a repair are what sorting all trades gives: stored, open, seeded, across kills."""

import random
from pathlib import Path

import numpy as np
import pytest

from tests.derive.world import (
    NAMES,
    SIZES_S,
    Trade,
    answers_of,
    expected_of,
    make_trades,
    rows_of,
    slots,
    symbol,
)
from tests.sinks.test_series import ALWAYS, Engine
from tradeback.derive.bars import is_whole
from tradeback.derive.seeds import bar_rows, boundary_row
from tradeback.model.record import LATE, REPAIRED


async def check(engine: Engine, world: list[Trade], begun: Trade, boundary_us: int) -> int:
    """Every bar that the tape or the seeds know wholly; returns how many there were."""
    checked = 0
    for index, name in enumerate(NAMES):
        size_us = SIZES_S[name] * 1_000_000
        answer = await engine.sink.bars(1, index, *ALWAYS, 100_000)
        made = {int(row["slot_us"]) // 1_000_000: row for row in answer.rows}
        for slot, bar in slots(world, name).items():
            known = (
                slot * 1_000_000 > begun.time_us or slot * 1_000_000 == boundary_us - boundary_us % size_us
            )
            if known:
                assert expected_of(made[slot]) == bar, (name, slot)
                assert is_whole(np.array([made[slot]], made[slot].dtype))[0] or made[slot]["seed_count"]
                checked += 1
    return checked


@pytest.mark.parametrize("seed", range(12))
async def test_lost_anywhere_repaired_late(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    world = make_trades(seed, 500, gap_us=rng.choice((300_000, 30_000_000)))
    begun, middle = rng.randrange(1, 150), rng.randrange(200, 400)
    lost = {trade.id for trade in world[begun:-1] if rng.random() < rng.choice((0.02, 0.2))}
    down = rng.randrange(begun + 1, 480)
    lost |= {trade.id for trade in world[down : down + rng.randrange(100)]} - {world[-1].id, world[begun].id}
    engine = Engine(tmp_path, 1)
    boundary_us = 0
    parts = (world[begun:middle], world[middle:])
    for number, part in enumerate(parts):
        for start in range(0, len(part), 50):
            engine.take(rows_of([trade for trade in part[start : start + 50] if trade.id not in lost]))
            if rng.random() < 0.3:
                await engine.flush()
            if rng.random() < 0.2:
                engine.kill()
                engine = Engine(tmp_path, 1)
        if number == 0:
            engine.take(boundary_row(1, world[middle - 1].time_us))
            boundary_us = engine.derived.boundary_us(1)
            if rng.random() < 0.7:
                engine.take(bar_rows(symbol(), boundary_us, answers_of(world, boundary_us)))
            else:
                lost_rows = rows_of([trade for trade in world[begun:middle] if trade.id in lost][:20])
                engine.take(lost_rows)  # some repaired before the seed comes, which has them as well
                lost -= {int(number) for number in lost_rows["id"]}
                engine.take(bar_rows(symbol(), boundary_us, answers_of(world, boundary_us)))
    late = rows_of([trade for trade in world if trade.id in lost])
    late["flags"] |= REPAIRED | LATE
    for start in range(0, len(late), 20):
        engine.take(late[start : start + 20])
        if rng.random() < 0.3:
            await engine.flush()
        if rng.random() < 0.3:
            engine.kill()
            engine = Engine(tmp_path, 1)
    assert await check(engine, world, world[begun], boundary_us) > 20
    await engine.flush()
    assert await check(engine, world, world[begun], boundary_us) > 20
    await engine.close()
