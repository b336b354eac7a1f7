"""kill -9 and orderly stops in mid-stream, many times: what a subscriber saw is on the tape, for ever."""

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.cli.running import tradeback
from tests.flow import oracle
from tests.flow.replaying import (
    all_rows,
    compare_with_replay,
    replay,
    replayed_bars,
    symbols_of,
    trades_of,
)
from tests.flow.running import Engine, Process, running_market, start_engine, until
from tests.flow.watching import Watcher, window
from tradeback.model.record import LATE, TRADE, Rows, empty_rows
from tradeback.tape.audit import problems

SYMBOLS = 5
RATE = 5_000.0
ENDS = ("kill", "kill", "start", "kill", "stop", "kill", "kill", "start", "kill", "kill", "stop", "start",
        "kill", "kill", "start", "kill")  # fmt: skip
"""How each run ends: kill -9 while a subscriber reads, kill -9 during the start, Ctrl-C."""
START_MOMENTS_S = 1.1
"""A start takes about so long; the moment of its kill is anywhere in it."""
ENTRIES_MAX = 900


@dataclass
class Known:
    """The tape as it was after the run before."""

    epochs: dict[int, int] = field(default_factory=dict)
    """First sequence of each piece -> epoch."""
    rows: Rows = field(default_factory=lambda: empty_rows(0))
    ids: dict[str, int] = field(default_factory=dict)

    def update(self, engine: Engine, turn: str) -> None:
        """Read the tape anew: all that was known must be there unchanged, and all of it in order."""
        reader = engine.tape()
        assert list(problems(reader, lambda segment, count: None)) == [], turn
        pieces = all_rows(reader)
        assert reader.oldest_sequence == 1
        rows = np.concatenate([empty_rows(0), *(rows for _, _, rows in pieces)])
        epochs = np.concatenate([np.zeros(0), *(np.full(len(rows), epoch) for epoch, _, rows in pieces)])
        before = self.rows
        assert len(rows) >= len(before), f"{turn}: the tape lost {len(before) - len(rows)} records"
        for sequence in np.flatnonzero(rows[: len(before)] != before)[:1] + 1:
            was, now = before[sequence - 1], rows[sequence - 1]
            raise AssertionError(f"{turn}: record {sequence} of epoch {epochs[sequence - 1]}: {was} -> {now}")
        assert len(set(epochs.tolist())) <= 1, f"{turn}: a killed process is no reason for a new epoch"
        self.rows = rows
        ids = {name: symbol.id for name, symbol in symbols_of(engine.data_dir).items()}
        assert self.ids.items() <= ids.items(), f"{turn}: symbols have changed their ids"
        self.ids = ids
        for name, number in ids.items():
            trades = trades_of(rows, number)
            assert len(np.unique(trades["id"])) == len(trades), f"{turn}: {name} has a trade twice"
            # Repair fills what was missed while the engine was down: those come late, and say so.
            rising = np.diff(trades["id"][trades["flags"] & LATE == 0])
            assert (rising > 0).all(), f"{turn}: {name} is out of order"


def check_seen(watcher: Watcher, before: Rows, known: Known, turn: str, *, to_the_end: bool) -> int:
    """What the subscriber saw stands on the tape without a hole, behind what was there before its run."""
    assert {number: name for name, number in known.ids.items()} == watcher.ids, turn
    compared = 0
    for name, seen in watcher.by_symbol().items():
        trades = trades_of(known.rows, known.ids[name])
        truth = list(zip(trades["price"].tolist(), trades["quantity"].tolist(), strict=True))
        place = window(truth, seen, len(trades_of(before, known.ids[name])))
        assert place is not None, f"{turn}: {name}: {seen[-3:]} were seen, the tape ends {truth[-3:]}"
        if name in watcher.last_known:
            before_it = trades[:place]
            newest = before_it[before_it["flags"] & LATE == 0]["price"][-1]
            assert watcher.last_known[name] == newest, f"{turn}: {name} began elsewhere"
        if to_the_end:
            assert place + len(seen) == len(truth), f"{turn}: {name}: trades came after the last message"
        compared += len(seen)
    return compared


async def run_once(end: str, data_dir: Path, market: Process, known: Known, rng: random.Random) -> int:
    """One life of the engine; returns how many entries a subscriber saw."""
    engine = await start_engine(data_dir, market.announced)
    before, turn = known.rows, f"run ended by {end} on {len(known.rows)} records"
    try:
        if end == "start":
            await asyncio.sleep(rng.uniform(0.0, START_MOMENTS_S))
            await engine.kill()
            if (data_dir / "registry.sqlite").exists():
                known.update(engine, turn)
            return 0
        await engine.announcement()
        await engine.ready()
        watcher = await Watcher.subscribe(engine.feed_url)
        await watcher.saw(rng.randrange(1, ENTRIES_MAX))
        await (engine.kill() if end == "kill" else engine.stop())
        await watcher.end()
        known.update(engine, turn)
        return check_seen(watcher, before, known, turn, to_the_end=end == "stop")
    finally:
        await engine.kill()


async def test_nothing_that_was_seen_is_ever_lost_or_renamed(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"the moments are those of seed {seed}")
    rng, known, data_dir = random.Random(seed), Known(), tmp_path / "data"
    async with running_market(tmp_path, SYMBOLS, RATE) as market:
        seen = [await run_once(end, data_dir, market, known, rng) for end in ENDS]
        assert sum(seen) > 500
        await last_run(data_dir, market, known)
    verified = await asyncio.to_thread(tradeback, "tape", "verify", "--data-dir", str(data_dir))
    assert verified.returncode == 0, verified.stderr
    assert f"records 1 to {len(known.rows)} " in verified.stdout


async def last_run(data_dir: Path, market: Process, known: Known) -> None:
    """After all these ends: bars, levels and prices are those of a replay from the first record."""
    engine = await start_engine(data_dir, market.announced)
    try:
        await engine.announcement()
        await engine.ready()
        watcher = await Watcher.subscribe(engine.feed_url)
        await engine.history_complete()
        await watcher.saw(watcher.count + ENTRIES_MAX)
        await until(lambda: all_repaired(engine), "what was missed between the runs", 60)
        await bar_closed(engine, next(iter(known.ids)))
        for name in known.ids:
            ids = await ticks_of(engine, name)
            assert ids == list(range(ids[0], ids[-1] + 1)), f"{name}: /ticks lacks trades, or has some twice"
        await market.kill()
        await until(lambda: lines_are_down(engine), "lines that have noticed")
        shown = {
            (name, resolution): await newest_bar(engine, name, resolution)
            for name in known.ids
            for resolution in oracle.SECONDS
        }
        before = known.rows
        await engine.stop()
        await watcher.end()
        known.update(engine, "the last run")
        check_seen(watcher, before, known, "the last run", to_the_end=True)
    finally:
        await engine.kill()
    assert compare_with_replay(data_dir) > 0
    derived, drained = replay(data_dir)
    for name, symbol in symbols_of(data_dir).items():
        for index, resolution in enumerate(oracle.SECONDS):
            made = replayed_bars(derived, drained, symbol, index)
            assert shown[name, resolution] == (max(made), made[max(made)]), f"{name} {resolution}"
    assert int((known.rows["kind"] == TRADE).sum()) > ENTRIES_MAX


async def bar_closed(engine: Engine, symbol: str) -> None:
    """Until a bar of the engine's own has closed: those of before may all be the exchange's by now."""
    start, _ = await newest_bar(engine, symbol, "1s")

    async def is_over() -> bool:
        return (await newest_bar(engine, symbol, "1s"))[0] >= start + 2

    await until(is_over, "two seconds with trades")


async def all_repaired(engine: Engine) -> bool:
    """Is nothing missing any more, of the times without an engine either?"""
    gaps = (await engine.get("/api/v1/gaps", limit=5_000))["gaps"]
    states = {gap["state"] for gap in gaps if gap["stream"] == "trade"}
    assert states <= {"open", "repaired"}, "the exchange has all of them"
    return states == {"repaired"}


async def ticks_of(engine: Engine, symbol: str) -> list[int]:
    """The ids of all trades, page by page."""
    ids: list[int] = []
    query: dict[str, object] = {"limit": 5_000}
    while True:
        page = await engine.get(f"/api/v1/symbols/{symbol}/ticks", **query)
        ids += [tick["id"] for tick in page["ticks"]]
        if page["next"] is None:
            return ids
        query["cursor"] = page["next"]


async def lines_are_down(engine: Engine) -> bool:
    detailed = await engine.get("/api/v1/health/detailed")
    return all(part["state"] != "ok" for part in detailed["components"] if part["name"].startswith("line"))


async def newest_bar(engine: Engine, symbol: str, resolution: str) -> tuple[int, oracle.BarValues]:
    """Start and values of the open bar, as the API shows it."""
    answer = await engine.get(f"/api/v1/symbols/{symbol}/bars", resolution=resolution)
    bar = answer["bars"][-1]
    return bar["time"], oracle.BarValues(*(bar[name] for name in oracle.BarValues._fields))
