"""kill -9 in the middle of a repair: after the restart no trade twice, and every gap closes."""

import asyncio
import random
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from tests.exchange.harness import CLOCK, until
from tests.exchange.repair_child import COUNT, is_lost
from tests.exchange.repairing import Books, market
from tests.exchange.test_rest import answering
from tradeback.derive.completeness_gap import REPAIRED
from tradeback.model.record import GAP, TRADE
from tradeback.model.record import REPAIRED as REPAIRED_FLAG
from tradeback.stores.gaps_sqlite import GapQuery, GapsSqlite
from tradeback.tape.reader import TapeReader

PAGE = 40


class Slow(Books):
    """Small pages, so that a repair takes many."""

    def __call__(self, request: web.Request) -> web.Response:
        request = request.clone(rel_url=request.rel_url.update_query(limit=str(PAGE)))
        return super().__call__(request)


async def child(folder: Path, endpoint: str, seed: int, end_us: int) -> asyncio.subprocess.Process:
    arguments = "-m", "tests.exchange.repair_child", str(folder), endpoint, str(seed), str(end_us)
    made = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert made.stdout is not None
    assert await asyncio.wait_for(made.stdout.readline(), 60) == b"begun\n"
    return made


def asked_enough(books: Slow, enough: int) -> bool:
    return len(books.asked) >= enough


@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_in_the_middle_of_a_repair(tmp_path: Path, seed: int) -> None:
    rng, end_us = random.Random(seed), CLOCK.wall_ns() // 1_000
    trades = market(COUNT, seed=seed, pause_us=1_000, end_us=end_us)
    books = Slow(trades)
    async with answering(books) as (rest, _):
        for _ in range(2):
            running = await child(tmp_path, rest.endpoint, seed, end_us)
            enough = len(books.asked) + rng.randrange(2, 15)
            await until(partial(asked_enough, books, enough))
            running.kill()
            await running.wait()
        running = await child(tmp_path, rest.endpoint, seed, end_us)
        assert running.stdout is not None
        assert await asyncio.wait_for(running.stdout.readline(), 60) == b"done\n"
        assert await running.wait() == 0
    rows = TapeReader(tmp_path / "tape").read(1, 1 << 20)
    ids = rows["id"][rows["kind"] == TRADE]
    assert sorted(ids.tolist()) == [trade.id for trade in trades], "each exactly once"
    mended = rows["id"][rows["flags"] & REPAIRED_FLAG != 0]
    assert set(mended.tolist()) == {trade.id for trade in trades if is_lost(trade.id)} - {ids.min()}
    store = GapsSqlite(tmp_path / "gaps.sqlite")
    gaps = store.find(GapQuery())
    store.close()
    assert {gap.state for gap in gaps} == {REPAIRED}
    named = {gap.name for gap in gaps}
    assert len(named) == len(gaps)
    covered = {number for first, last in named for number in range(first, last + 1)}
    assert {trade.id for trade in trades if is_lost(trade.id)} == covered
    said = rows[rows["kind"] == GAP]
    assert set(zip(said["id"].tolist(), said["ask"].astype(np.int64).tolist(), strict=True)) == named
