"""The drain: whatever fails, every record is in the store once, and nothing else is held."""

import asyncio
import random
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sinks.drain_world import (
    QUICK,
    Memory,
    MemoryTape,
    MemoryTarget,
    drain_of,
    late,
    quotes,
    trades,
    until,
)
from tradeback.model.errors import StoreError
from tradeback.sinks.drain import Drain
from tradeback.stores.ports import Position


def everything(tape: MemoryTape) -> dict[tuple[int, int], int]:
    """What the store must hold: every record of the tape as it is now, under its epoch."""
    found = {}
    for place, (epoch, first) in enumerate(tape.history):
        end = tape.history[place + 1][1] if place + 1 < len(tape.history) else tape.next_sequence
        for sequence in range(max(first, tape.oldest_sequence), end):
            found[epoch, sequence] = int(tape.rows["id"][sequence - 1])
    return found


async def reached(drain: Drain, tape: MemoryTape) -> None:
    await until(lambda: drain.position.sequence == tape.next_sequence - 1)


class Trouble:
    """Fails at random; a share of the calls hangs beyond the time limit."""

    def __init__(self, seed: int, share: float) -> None:
        self.random, self.share = random.Random(seed), share

    def __call__(self, where: str) -> None:
        if self.random.random() < self.share:
            raise (ConnectionError(where), StoreError(where), TimeoutError(), OSError(28, where))[
                self.random.randrange(4)
            ]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 400), st.floats(0.0, 0.25), st.integers(0, 3), st.booleans())
async def test_every_record_is_in_the_store_once(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, share: float, kills: int, names: bool
) -> None:
    """Failures before and after the effect, restarts of the process, a crash of the machine, bad rows."""
    folder = tmp_path_factory.mktemp("drain")
    chance = random.Random(seed)
    tape, memory = MemoryTape(), Memory()
    memory.bad = {chance.randint(1, count) for _ in range(chance.randrange(4))}
    rows = trades(count)
    cut = chance.randrange(count + 1)
    tape.append(rows[:cut])
    for _ in range(kills):
        target = MemoryTarget(memory, Trouble(chance.randrange(1 << 32), share), names)
        drain = drain_of(tape, target, folder)
        drain.start()
        goal = chance.randrange(cut + 1)
        await until(lambda drain=drain, goal=goal: drain.position.sequence >= goal)  # type: ignore[misc]
        assert drain._task is not None
        drain._task.cancel()  # as near to kill -9 as a task gets: nothing is saved
        await asyncio.wait({drain._task})
    if cut and chance.random() < 0.3:
        tape.lose_tail(chance.randrange(1, cut + 1))
    target = MemoryTarget(memory, Trouble(seed, share), names)
    drain = drain_of(tape, target, folder)
    drain.start()
    tape.append(rows[len(tape.rows) :])
    await reached(drain, tape)
    target.hit = None
    await drain.stop()
    wanted = {key: id_ for key, id_ in everything(tape).items() if id_ not in memory.bad}
    assert {key: id_ for key, id_ in memory.held.items() if key in wanted} == wanted
    lost_tails = {key for key in memory.held if key not in wanted}
    assert all(epoch < tape.epoch for epoch, _ in lost_tails)
    assert memory.position == Position(tape.epoch, count) or len(tape.history) > 1
    assert target.running_most <= QUICK.in_flight
    assert drain.health().details is not None


async def test_at_most_two_batches_are_held_and_sent_in_order(tmp_path: Path) -> None:
    tape, memory = MemoryTape(), Memory()
    target = MemoryTarget(memory)
    target.gate = asyncio.Event()
    tape.append(trades(1_000))
    drain = drain_of(tape, target, tmp_path, replace(QUICK, write_timeout_s=5.0))
    drain.start()
    await until(lambda: target.running == 2)
    assert target.calls == [("write", 1, 10), ("write", 11, 10)]
    assert len(drain._flights) == 2
    assert drain.lag_records == 1_000
    assert drain.lag_s > 0
    target.gate.set()
    await reached(drain, tape)
    await drain.stop()
    assert [first for _, first, _ in target.calls] == list(range(1, 1_001, 10))
    assert memory.position == Position(7, 1_000)
    assert drain.health().state == "ok"
    assert (drain.lag_records, drain.lag_s) == (0, 0.0)


async def test_a_hung_store_is_left_and_found_again(tmp_path: Path) -> None:
    tape, memory = MemoryTape(), Memory()
    target = MemoryTarget(memory)
    target.gate = asyncio.Event()
    tape.append(trades(50))
    drain = drain_of(tape, target, tmp_path, replace(QUICK, write_timeout_s=0.01))
    drain.start()
    await until(lambda: drain.health().state == "down")
    assert "write took longer than 0.01 s" in str(drain.health().last_error)
    assert target.closes >= 1
    before = target.opens
    await until(lambda: target.opens > before + 2)
    target.gate.set()
    await reached(drain, tape)
    await drain.stop()
    assert drain.health().state == "ok"
    assert memory.held == everything(tape)


async def test_a_call_that_ignores_its_cancellation_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tradeback.sinks.drain_calls.CANCEL_GRACE_S", 0.01)
    free = asyncio.Event()

    class Deaf(MemoryTarget):
        async def _write(self, batch):  # type: ignore[no-untyped-def]
            while not free.is_set():
                try:
                    await free.wait()
                except asyncio.CancelledError:
                    continue
            return await super()._write(batch)

    tape, memory = MemoryTape(), Memory()
    target = Deaf(memory)
    tape.append(trades(5))
    drain = drain_of(tape, target, tmp_path, replace(QUICK, write_timeout_s=0.01))
    drain.start()
    await until(lambda: drain._calls.abandoned >= 2)
    free.set()
    await reached(drain, tape)
    await drain.stop()
    await until(lambda: not drain._calls._stray)
    assert memory.held == everything(tape)


async def test_the_first_failure_is_repeated_at_once_and_a_down_store_is_probed_ever_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape, memory = MemoryTape(), Memory()
    times: list[float] = []

    def hit(where: str) -> None:
        if where in ("before", "open"):
            times.append(asyncio.get_running_loop().time())
            raise ConnectionError("refused") if len(times) > 1 else RuntimeError("first")

    tape.append(trades(1))
    config = replace(QUICK, backoff_first_s=0.01, backoff_max_s=0.04)
    drain = drain_of(tape, MemoryTarget(memory, hit), tmp_path, config)
    drain._chance = lambda: 0.0
    waits_ms: list[float] = []
    delay_s = drain._backoff.delay_s

    def noted(failures: int, chance: float) -> float:
        waits_ms.append(delay_s(failures, chance) * 1000)
        return waits_ms[-1] / 1000

    monkeypatch.setattr(drain, "_backoff", SimpleNamespace(delay_s=noted))
    drain.start()
    await until(lambda: len(times) == 6)
    assert drain._task is not None
    drain._task.cancel()
    assert waits_ms[:4] == pytest.approx([5, 10, 20, 20]), "and none before the first repeat"
    assert len(waits_ms) in (4, 5), "the sixth hit's own wait may have been taken already"
    assert all(np.diff(times)[1:] * 1000 >= np.array(waits_ms[:4]) - 1)
    await asyncio.wait({drain._task})


async def test_bad_rows_are_set_aside_once_with_their_reason(tmp_path: Path) -> None:
    tape, memory = MemoryTape(), Memory()
    memory.bad = {3, 17, 18}
    target = MemoryTarget(memory)
    tape.append(trades(20))
    config = replace(QUICK, batch_rows=20, in_flight=1)
    drain = drain_of(tape, target, tmp_path, config)
    drain.start()
    await reached(drain, tape)
    await drain.stop()
    assert sorted(memory.held.values()) == [id_ for id_ in range(1, 21) if id_ not in memory.bad]
    lines = [orjson.loads(line) for line in (tmp_path / "aside/memory.jsonl").read_bytes().splitlines()]
    assert [(line["sequence"], line["id"], line["kind"], line["epoch"]) for line in lines] == [
        (3, 3, "trade", 7),
        (17, 17, "trade", 7),
        (18, 18, "trade", 7),
    ]
    assert lines[0]["reason"] == "row 3 is bad"
    details = drain.health().details
    assert details is not None
    assert details["refused"] == 3
    assert drain.rows == 17
    assert len(target.calls) < 30, "halved, not tried one by one"


async def test_a_store_that_refuses_everything_costs_a_bounded_number_of_writes(tmp_path: Path) -> None:
    tape, memory = MemoryTape(), Memory()
    memory.bad = set(range(1, 201))
    target = MemoryTarget(memory)
    tape.append(trades(200))
    config = replace(QUICK, batch_rows=200, in_flight=1, refused_writes_max=20)
    drain = drain_of(tape, target, tmp_path, config)
    drain.start()
    await reached(drain, tape)
    await drain.stop()
    assert len(target.calls) < 40
    assert drain.health().details["refused"] == 200  # type: ignore[index]


async def test_the_file_of_refused_rows_is_bounded(tmp_path: Path) -> None:
    tape, memory = MemoryTape(), Memory()
    memory.bad = set(range(1, 301))
    target = MemoryTarget(memory, names_bad=True)
    tape.append(trades(300))
    drain = drain_of(tape, target, tmp_path)
    drain._aside._bytes_max = 20_000
    drain.start()
    await reached(drain, tape)
    await drain.stop()
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "aside").iterdir()}
    assert set(sizes) == {"memory.jsonl", "memory.jsonl.1"}
    assert max(sizes.values()) <= 20_000
    assert drain.health().details["refused"] == 300  # type: ignore[index]


async def test_retention_faster_than_the_store_is_counted_and_passed(tmp_path: Path) -> None:
    tape, memory = MemoryTape(), Memory()
    target = MemoryTarget(memory)
    memory.position = Position(7, 20)
    tape.append(trades(100))
    tape.forget(50)
    drain = drain_of(tape, target, tmp_path)
    drain.start()
    await reached(drain, tape)
    await drain.stop()
    assert memory.held == everything(tape)
    assert drain.health().details["gone"] == 30  # type: ignore[index]


async def test_a_store_that_lost_its_data_gets_them_again(tmp_path: Path) -> None:
    tape, memory = MemoryTape(), Memory()
    failing = False

    def hit(where: str) -> None:
        if failing:
            raise ConnectionError("down")

    target = MemoryTarget(memory, hit)
    tape.append(trades(100))
    drain = drain_of(tape, target, tmp_path)
    drain.start()
    await reached(drain, tape)
    failing = True
    tape.append(trades(1, 101))
    await until(lambda: drain.health().state == "down")
    memory.held.clear()
    memory.position = None
    failing = False
    await until(lambda: memory.held == everything(tape))
    await drain.stop()


@pytest.mark.parametrize("position", [Position(99, 10), Position(99, 1_000), Position(7, 1_000)])
async def test_a_position_of_another_tape_means_the_whole_tape(tmp_path: Path, position: Position) -> None:
    tape, memory = MemoryTape(), Memory()
    tape.append(trades(100))
    memory.position = position
    drain = drain_of(tape, MemoryTarget(memory), tmp_path)
    drain.start()
    await until(lambda: memory.held == everything(tape))
    await drain.stop()


async def test_catching_up_is_limited_in_rate_and_live_is_not(tmp_path: Path) -> None:
    tape, memory = MemoryTape(), Memory()
    tape.append(trades(400))
    config = replace(QUICK, catch_up_rows_s=1_000.0)
    drain = drain_of(tape, MemoryTarget(memory), tmp_path, config)
    loop = asyncio.get_running_loop()
    began = loop.time()
    drain.start()
    await reached(drain, tape)
    assert loop.time() - began > 0.25, "the last batches are live"
    rests: list[float] = []
    rest = drain._reader._rest

    def noted(seconds: float) -> None:
        rests.append(seconds)
        rest(seconds)

    drain._reader._rest = noted  # type: ignore[method-assign]
    tape.append(trades(15, 401))
    await reached(drain, tape)
    assert max(rests) <= QUICK.batch_age_s
    await drain.stop()


async def test_a_price_cache_gets_the_newest_of_each_and_no_past(tmp_path: Path) -> None:
    tape, memory = MemoryTape(), Memory()
    target = MemoryTarget(memory)
    for symbol_id in range(1, 4):
        tape.append(trades(100, symbol_id=symbol_id, price=float(symbol_id)))
        tape.append(quotes(100, symbol_id=symbol_id))
    tape.append(late(trades(1, 40, symbol_id=2, price=99.0)))
    drain = drain_of(
        tape, target, tmp_path, replace(QUICK, latest_only=True, latest_scan_rows=450, in_flight=1)
    )
    drain.start()
    await reached(drain, tape)
    (batch,) = target.batches
    assert [(int(row["symbol_id"]), int(row["kind"]), int(row["id"])) for row in batch.rows] == [
        (1, 2, 100), (2, 1, 100), (2, 2, 100), (3, 1, 100), (3, 2, 100),
    ]  # fmt: skip
    assert (batch.first_sequence, batch.last_sequence) == (152, 601)
    assert not batch.is_contiguous
    tape.append(late(trades(1, 41, symbol_id=2, price=98.0)))
    tape.append(trades(1, 101, symbol_id=2, price=97.0))
    await reached(drain, tape)
    await drain.stop()
    assert target.batches[-1].rows["price"].tolist() == [97.0]


async def test_a_price_cache_comes_back_although_it_reads_for_a_while_first(tmp_path: Path) -> None:
    failing = False

    def hit(where: str) -> None:
        if failing:
            raise StoreError("away")

    tape, memory = MemoryTape(), Memory()
    target = MemoryTarget(memory, hit)
    tape.append(trades(500))
    how = replace(QUICK, latest_only=True, latest_scan_rows=450, in_flight=1)
    drain = drain_of(tape, target, tmp_path, how)
    drain.start()
    await reached(drain, tape)
    failing = True
    tape.append(trades(500, 501))
    await until(lambda: drain.health().state == "down")
    failing = False
    tape.append(trades(500, 1_001))
    await reached(drain, tape)
    assert drain.health().state == "ok"
    await drain.stop()
    assert target.batches[-1].rows["id"].tolist() == [1_500]


async def test_what_a_price_cache_could_not_put_is_put_when_it_is_back(tmp_path: Path) -> None:
    """Also when nothing new has come meanwhile: the newest of each is given out again."""
    failing = True

    def hit(where: str) -> None:
        if failing and where == "before":
            raise StoreError("away")

    tape, memory = MemoryTape(), Memory()
    target = MemoryTarget(memory, hit)
    tape.append(trades(20))
    drain = drain_of(tape, target, tmp_path, replace(QUICK, latest_only=True, in_flight=1))
    drain.start()
    await until(lambda: drain.health().state == "down")
    opens = target.opens
    await until(lambda: target.opens > opens + 2)
    assert drain.health().state == "down", "nothing was put: it is not well"
    failing = False
    await until(lambda: drain.health().state == "ok")
    await drain.stop()
    assert [batch.rows["id"].tolist() for batch in target.batches] == [[20]]


async def test_an_idle_drain_opens_and_is_well(tmp_path: Path) -> None:
    failing = True

    def hit(where: str) -> None:
        if failing:
            raise StoreError("wrong password: set REDIS_PASSWORD")

    tape, memory = MemoryTape(), Memory()
    drain = drain_of(tape, MemoryTarget(memory, hit), tmp_path)
    drain.start()
    await until(lambda: drain.errors > 4)
    health = drain.health()
    assert (health.state, health.last_error) == ("down", "wrong password: set REDIS_PASSWORD")
    failing = False
    await until(lambda: drain.health().state == "ok")
    assert drain.health().last_error is None
    await drain.stop()


async def test_stop_does_not_wait_for_a_dead_store(tmp_path: Path) -> None:
    tape, memory = MemoryTape(), Memory()
    target = MemoryTarget(memory)
    target.gate = asyncio.Event()
    tape.append(trades(5))
    drain = drain_of(tape, target, tmp_path, replace(QUICK, write_timeout_s=30.0))
    drain.start()
    await until(lambda: target.running)
    async with asyncio.timeout(1.0):
        await drain.stop(timeout_s=0.01)
    assert target.closes == 1
    assert memory.position is None


async def test_memory_stays_bounded_while_the_store_hangs(tmp_path: Path) -> None:
    tape, memory = MemoryTape(), Memory()
    target = MemoryTarget(memory)
    target.gate = asyncio.Event()
    drain = drain_of(tape, target, tmp_path, replace(QUICK, write_timeout_s=0.005))
    drain.start()
    for step in range(30):
        tape.append(trades(100, 1 + step * 100))
        await asyncio.sleep(0.002)
        held = sum(flight.batch.rows.nbytes for flight in drain._flights)
        assert held <= 2 * QUICK.batch_rows * tape.rows.itemsize
    assert sys.getsizeof(drain._calls._stray) < 10_000
    target.gate.set()
    await reached(drain, tape)
    await drain.stop()
    assert memory.held == everything(tape)


async def test_metrics_name_the_sink(tmp_path: Path) -> None:
    drain = drain_of(MemoryTape(), MemoryTarget(Memory()), tmp_path)
    families = {family.name: family for family in drain.collect()}
    assert families["tradeback_sink_lag_records"].samples == [({"sink": "memory"}, 0)]
    assert len(families) == 14
