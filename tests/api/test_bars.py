"""api.bars: windows equal what the store would answer, come from memory, and follow repairs and klines."""

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.api.history_world import BEGIN_S, BTC, Exchange, flush, trades
from tests.feed.harness import World
from tests.sinks.gate import Gate
from tradeback.api import bar_cache, bars
from tradeback.api.bar_text import Window, columns_text, objects_text
from tradeback.api.bars import Ask, BarReader, _still_running
from tradeback.api.shapes import bars_json
from tradeback.derive.completeness_ranges import IdRanges
from tradeback.derive.layout import BAR, resolution_index

MINUTE = resolution_index("1m")
FAR_S = 1 << 42


def ask(from_s: int = 0, to_s: int = FAR_S, limit: int = 20_000, countback: int = 0, **more: Any) -> Ask:
    return Ask(BTC, MINUTE, from_s, to_s, limit, countback, **more)


def times(window: Window) -> list[int]:
    return [int(slot) // 1_000_000 for slot in window.rows()["slot_us"]]


async def oracle(running: World, from_s: int, to_s: int, limit: int, countback: int) -> list[dict[str, Any]]:
    """The rule of udf.md section 5, over everything there is."""
    series: Any = running.context.series
    rows, complete = await series.bars(1, MINUTE, 0, FAR_S, 1 << 20, newest=True)
    found = bars_json(rows, complete)
    end = sum(bar["time"] < to_s for bar in found)
    first = sum(bar["time"] < from_s for bar in found)
    begin = max(min(first, end - countback), end - limit, 0)
    return found[begin:end]


@pytest.mark.parametrize("stored", ["memory", "store", "both"])
async def test_windows_are_cut_exactly(served: World, stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "PREFETCH_BARS", 7)
    rng = random.Random(5)
    minutes = sorted(rng.sample(range(400), 170))
    rows = trades([BEGIN_S + 60 * minute + second for minute in minutes for second in (3, 40)])
    half = len(rows) // 2
    served.publish(rows[:half])
    if stored != "memory":
        await flush(served)
    reader = BarReader(served.context)
    for stage in (half, len(rows)):
        if stage > half:
            served.publish(rows[half:])
            if stored == "store":
                await flush(served)
        for _ in range(60):
            from_s, to_s = sorted(BEGIN_S + rng.randrange(-3_000, 27_000) for _ in range(2))
            limit, countback = rng.choice([3, 50, 1_000]), rng.choice([0, 1, 2, 40, 500])
            window = await reader.window(ask(from_s, to_s, limit, countback))
            expected = await oracle(served, from_s, to_s, limit, countback)
            assert bars_json(window.rows(), window.complete()) == expected, (from_s, to_s, limit, countback)
            for form in (objects_text, columns_text):
                written = await reader.text(window, form)
                assert tuple(map(b",".join, written)) == form(window.rows(), window.complete())


async def test_what_was_read_once_is_answered_from_memory(served: World) -> None:
    served.publish(trades([BEGIN_S + 20 * place for place in range(3_000)]))
    await flush(served)
    reader = BarReader(served.context)
    first = await reader.window(ask(countback=500))
    reads = reader.reads
    for _ in range(5):
        again = await reader.window(ask(countback=500))
        assert times(again) == times(first)
        assert again.tag() == first.tag()
    served.publish(trades([BEGIN_S + 20 * 3_000], first_id=3_001))
    moved = await reader.window(ask(countback=500))
    assert moved.tag() != first.tag()
    assert times(moved)[-1] == BEGIN_S + 60_000
    assert reader.reads <= reads + 1, "only the bar that has closed"


def test_no_other_process_gives_the_tag_of_this_one_to_other_bars() -> None:
    """Engine and recorder answer the same addresses, and both are started again."""
    code = "from tradeback.api.bar_cache import Held; print(Held(0).serial)"
    begun = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True) for _ in range(2)]
    serials = {int(each.stdout) for each in begun}
    assert len(serials) == 2
    assert bar_cache.Held(0).serial not in serials


async def test_the_running_bar_is_always_fresh(served: World) -> None:
    served.publish(trades([BEGIN_S, BEGIN_S + 60]))
    reader = BarReader(served.context)
    for number in range(3, 30):
        served.publish(trades([BEGIN_S + 60 + number], first_id=number))
        window = await reader.window(ask())
        assert int(window.rows()["trade_count"][-1]) == number - 1
        assert not window.is_final


@pytest.mark.parametrize("flushed", [False, True])
async def test_a_late_trade_shows_at_once(served: World, flushed: bool) -> None:
    ids = [number for number in range(1, 61) if number not in (10, 11)]
    served.publish(trades([BEGIN_S + 30 * number for number in ids], ids=ids))
    if flushed:
        await flush(served)
    reader = BarReader(served.context)
    window = await reader.window(ask())
    torn = BEGIN_S + 300
    assert not bool(window.complete()[times(window).index(BEGIN_S + 240)])
    assert torn not in times(window)
    served.publish(trades([BEGIN_S + 300, BEGIN_S + 330], first_id=10))
    window = await reader.window(ask())
    assert int(window.rows()["trade_count"][times(window).index(torn)]) == 2
    assert window.complete()[1:-1].all()
    assert bars_json(window.rows(), window.complete()) == await oracle(served, 0, FAR_S, 20_000, 0)


async def test_incomplete_bars_are_looked_at_again_after_a_while(
    served: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [number for number in range(1, 61) if number != 10]
    served.publish(trades([BEGIN_S + 30 * number for number in ids], ids=ids))
    reader = BarReader(served.context)
    await reader.window(ask())
    reads = reader.reads
    await reader.window(ask())
    assert reader.reads == reads
    monkeypatch.setattr(bar_cache, "DOUBT_S", 0.0)
    await reader.window(ask())
    assert reader.reads > reads


async def test_a_window_far_from_what_is_held_is_read_apart(
    served: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bars, "NEAR_SLOTS", 10)
    served.publish(trades([BEGIN_S + 60 * place for place in range(1_000)]))
    await flush(served)
    reader = BarReader(served.context)
    await reader.window(ask(countback=20))
    held = reader.cache.bars
    old = await reader.window(ask(BEGIN_S, BEGIN_S + 600))
    assert times(old) == list(range(BEGIN_S, BEGIN_S + 600, 60))
    assert old.is_final is False, "its first bar has nothing before it"
    later = await reader.window(ask(BEGIN_S + 60, BEGIN_S + 600))
    assert later.is_final
    assert later.previous_s == BEGIN_S
    assert reader.cache.bars == held


async def test_the_cache_is_bounded(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bar_cache, "CACHE_BARS_MAX", 50)
    monkeypatch.setattr(bars, "SERIES_BARS_MAX", 40)
    monkeypatch.setattr(bars, "PREFETCH_BARS", 0)
    served.publish(trades([BEGIN_S + 60 * place for place in range(200)]))
    await flush(served)
    reader = BarReader(served.context)
    for resolution in range(7):
        window = await reader.window(Ask(BTC, resolution, 0, FAR_S, 30, 30))
        assert window.count <= 30
    window = await reader.window(ask(limit=100, countback=100))
    assert window.count == 100, "more than is held is answered all the same"
    assert reader.cache.bars <= 90
    assert reader.cache.drops > 0


# The exchange's klines.


async def test_what_the_store_lacks_is_fetched_once(served: World, gate: Gate) -> None:
    served.publish(trades([BEGIN_S + 60 * place for place in range(10)]))
    exchange = Exchange(served, gate, BEGIN_S - 1_000 * 60, BEGIN_S)
    reader = BarReader(served.context)
    window = await reader.window(ask(BEGIN_S - 600, BEGIN_S + 300))
    assert times(window) == list(range(BEGIN_S - 600, BEGIN_S + 300, 60))
    assert window.settled
    assert len(exchange.asked) == 1
    again = await reader.window(ask(BEGIN_S - 600, BEGIN_S + 300))
    assert times(again) == times(window)
    assert len(exchange.asked) == 1


async def test_countback_reaches_back_to_the_exchanges_first_bar(served: World, gate: Gate) -> None:
    served.publish(trades([BEGIN_S + 60 * place for place in range(10)]))
    exchange = Exchange(served, gate, BEGIN_S - 50 * 60, BEGIN_S)
    reader = BarReader(served.context)
    window = await reader.window(ask(BEGIN_S, BEGIN_S + 120, countback=30))
    assert window.count == 30
    window = await reader.window(ask(BEGIN_S, BEGIN_S + 120, countback=300))
    assert window.count == 52
    assert window.settled
    window = await reader.window(ask(0, BEGIN_S - 50 * 60, countback=300))
    assert window.count == 0
    assert window.settled
    assert window.previous_s is None
    asked = len(exchange.asked)
    await reader.window(ask(0, BEGIN_S - 50 * 60, countback=300))
    assert len(exchange.asked) == asked


async def test_a_range_is_never_cut_because_countback_has_enough(served: World, gate: Gate) -> None:
    served.publish(trades([BEGIN_S + 60 * place for place in range(10)]))
    Exchange(served, gate, BEGIN_S - 5_000 * 60, BEGIN_S)
    reader = BarReader(served.context)
    assert (await reader.window(ask(BEGIN_S - 3_000 * 60, FAR_S, countback=20))).count == 3_010
    window = await reader.window(ask(0, FAR_S, countback=20))
    assert window.count == 5_010
    assert window.settled
    assert (await reader.window(ask(0, FAR_S, limit=4_000))).count == 4_000


async def test_a_hole_between_bars_is_fetched(served: World, gate: Gate) -> None:
    early = [BEGIN_S + 60 * place for place in range(10)]
    late = [BEGIN_S + 60 * place for place in range(100, 200)]
    served.publish(trades([*early, *late], ids=[*range(1, 11), *range(500, 600)]))
    await flush(served)
    Exchange(served, gate, BEGIN_S, BEGIN_S + 200 * 60)
    reader = BarReader(served.context)
    window = await reader.window(ask(BEGIN_S, BEGIN_S + 150 * 60))
    assert times(window) == list(range(BEGIN_S, BEGIN_S + 150 * 60, 60))
    assert window.complete()[:-1].all(), "the exchange's own bars are complete"


async def test_slots_without_trades_are_no_holes(served: World, gate: Gate) -> None:
    served.publish(trades([BEGIN_S + 600 * place for place in range(20)]))
    await flush(served)
    exchange = Exchange(served, gate, BEGIN_S + 1, BEGIN_S + 1)
    exchange.covered[1, MINUTE] = IdRanges([(0, BEGIN_S + 59)])
    window = await BarReader(served.context).window(ask(BEGIN_S, BEGIN_S + 9_000))
    assert window.count == 15
    assert exchange.asked == []


async def test_an_exchange_that_does_not_answer_leaves_what_there_is(served: World, gate: Gate) -> None:
    served.publish(trades([BEGIN_S + 60 * place for place in range(10)]))
    exchange = Exchange(served, gate, BEGIN_S - 1_000 * 60, BEGIN_S)
    exchange.works = False
    reader = BarReader(served.context)
    window = await reader.window(ask(BEGIN_S - 600, BEGIN_S + 300))
    assert times(window) == list(range(BEGIN_S, BEGIN_S + 300, 60))
    assert not window.settled
    await reader.window(ask(BEGIN_S - 600, BEGIN_S + 300))
    assert len(exchange.asked) == 1, "it is not asked with every request"
    exchange.works = True
    reader.cache.of(1, MINUTE).look_again_s = 0.0
    window = await reader.window(ask(BEGIN_S - 600, BEGIN_S + 300))
    assert window.settled
    assert window.count == 15


async def test_without_a_beginning_only_what_is_stored_is_answered(served: World, gate: Gate) -> None:
    served.publish(trades([BEGIN_S + 60 * place for place in range(10)]))
    exchange = Exchange(served, gate, BEGIN_S - 1_000 * 60, BEGIN_S)
    window = await BarReader(served.context).window(ask(deep=False))
    assert window.count == 10
    assert all(span.from_s >= BEGIN_S for spans, _ in exchange.asked for span in spans)


async def test_klines_that_came_by_another_way_show_at_once(served: World, gate: Gate) -> None:
    served.publish(trades([BEGIN_S + 60 * place for place in range(10)]))
    exchange = Exchange(served, gate, 0, 0)
    exchange.covered[1, MINUTE] = IdRanges([(0, BEGIN_S + 59)])
    reader = BarReader(served.context)
    assert (await reader.window(ask(BEGIN_S - 600))).count == 10
    gate.put_history(exchange.klines(BTC, MINUTE, BEGIN_S - 300, BEGIN_S))
    exchange.generations[1, MINUTE] = 7
    window = await reader.window(ask(BEGIN_S - 600))
    assert window.count == 15
    assert window.complete()[:5].all()


def test_an_older_bar_without_the_trades_before_the_newer_one_is_not_running() -> None:
    """Then the store may hold the exchange's own of it, which memory must not hide."""
    rows = np.zeros(2, BAR)
    rows["slot_us"] = (60_000_000, 120_000_000)
    rows["trade_count"], rows["first_id"], rows["last_id"] = (10, 5), (1, 11), (10, 15)
    assert len(_still_running(rows)) == 2
    apart = rows.copy()
    apart["first_id"][1], apart["last_id"][1] = 14, 18
    assert _still_running(apart)["slot_us"].tolist() == [120_000_000]
    holed = rows.copy()
    holed["trade_count"][0] = 9
    assert _still_running(holed)["slot_us"].tolist() == [120_000_000]
    assert len(_still_running(rows[1:])) == 1
