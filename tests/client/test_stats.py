"""client.stats: the numbers between two answers, the same as the page's own; and the words for them."""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tradeback.cli import numbers
from tradeback.client.stats import (
    ClockBound,
    Hop,
    Recent,
    between,
    first_share,
    line_state,
    passed,
    quantile,
)

JS = Path(__file__).resolve().parents[2] / "tradeback" / "web" / "js"
BOUNDS = [10, 20, 50, 100, 1_000]


def reading(
    timestamp: float, messages: int, wire: list[int], engine: list[int], **more: Any
) -> dict[str, Any]:
    return {
        "timestamp": timestamp, "started_at": 1, "clock": None,
        "messages": {"trade": messages, "quote": messages}, "accepted": {"trade": messages},
        "duplicates": {"quote": messages // 2},
        "exchange_to_engine": {"bounds_us": [100, 200], "counts": wire, "ahead": 0},
        "inside_engine": {"bounds_us": [100, 200], "counts": engine}, **more,
    }  # fmt: skip


def test_quantiles_lie_inside_their_bucket() -> None:
    assert quantile([10, 20, 40], [10, 0, 0, 0], 0.5) == 5
    assert quantile([10, 20, 40], [0, 4, 0, 0], 0.25) == 12.5
    assert quantile([10, 20, 40], [0, 0, 0, 7], 0.5) == 40, "beyond all bounds: the last one"
    assert quantile([10, 20, 40], [0, 0, 0, 0], 0.5) is None


def test_a_histogram_that_began_anew_counts_whole() -> None:
    assert passed([1, 2], [3, 5]) == [2, 3]
    assert passed([9, 9], [3, 5]) == [3, 5]
    assert passed(None, [3, 5]) == [3, 5]
    assert passed([1], [3, 5]) == [3, 5]


def test_rates_and_latencies_are_those_of_the_time_between() -> None:
    told = between(reading(1_000, 100, [5, 0, 0], [5, 0, 0]), reading(3_000, 300, [5, 10, 0], [15, 0, 0]))
    assert (told.messages, told.accepted, told.duplicates) == (200, 100, 50)
    assert told.exchange_to_engine.p50_us == 150
    assert told.inside_engine.p50_us == 50
    assert told.exchange_to_engine.error_us is None


def test_an_engine_that_was_started_anew_has_no_rate_yet() -> None:
    now = reading(2_000, 3, [1, 0, 0], [1, 0, 0], started_at=2)
    told = between(reading(1_000, 9_000, [5, 0, 0], [5, 0, 0]), now)
    assert (told.messages, told.inside_engine.p50_us) == (None, 50)


def test_exchange_to_engine_is_corrected_and_says_how_wrong_it_can_be() -> None:
    clock = {"offset_ms": 0.25, "error_ms": 0.1}
    told = between(None, reading(1_000, 1, [10, 0, 0], [1, 0, 0], clock=clock))
    assert told.exchange_to_engine == Hop(300.0, 349.0, 100.0)


def test_messages_that_came_before_they_were_sent_hide_the_latency() -> None:
    now = reading(1_000, 1, [10, 0, 0], [1, 0, 0])
    now["exchange_to_engine"]["ahead"] = 8
    assert between(None, now).exchange_to_engine.hidden


def test_each_exchange_bounds_the_clocks_offset_from_both_sides() -> None:
    clock = ClockBound()
    assert clock.now is None
    # The engine is 100 ms before us; the way there takes 3 ms, its own time 5, the way back 1.
    clock.add(1_000, 1_103, 1_108, 1_009)
    assert clock.now == (101.0, 2.0)
    clock.add(2_000, 2_101, 2_102, 2_005)
    assert clock.now == (100.0, 1.0)
    clock.add(3_000, 9_001, 9_002, 3_003)  # somebody has set a clock
    assert clock.now == (6_000.0, 1.0)


def test_what_is_old_counts_no_more() -> None:
    recent = Recent(3)
    assert recent.quantiles([0.5], 0.0) == [None]
    for value, now_s in ((9.0, 0.0), (1.0, 10.0), (2.0, 11.0), (3.0, 12.0)):
        recent.add(value, now_s)
    assert recent.quantiles([0.0, 0.5, 0.99], 12.0) == [1.0, 2.0, 3.0]
    assert recent.quantiles([0.5], 16.5) == [3.0]


def test_lines() -> None:
    up, down = {"state": "ok", "wins": 3}, {"state": "down", "wins": 1}
    assert [line_state(each) for each in ([up, up], [up, down], [down], [])] == [
        "ok", "degraded", "down", "none",
    ]  # fmt: skip
    assert first_share({"a": [up], "b": [down]}) == 0.75
    assert first_share({"a": [up]}) is None


SCRIPT = """
import * as measure from "./measure.js";
import * as numbers from "./numbers.js";
import { readFileSync } from "node:fs";
const { pairs, samples, recent, values, lines } = JSON.parse(readFileSync(0, "utf8"));
const clock = new measure.ClockBound(5), held = new measure.Recent(50);
process.stdout.write(JSON.stringify({
  pairs: pairs.map(([before, now]) => measure.between(before, now)),
  clocks: samples.map((sample) => (clock.add(...sample), clock.now)),
  recent: recent.map(([value, ms]) => (held.add(value, ms), held.quantiles([0.5, 0.99], ms))),
  lines: lines.map(measure.lineState),
  words: values.map((v) => [numbers.duration(v), numbers.compact(v), numbers.whole(v), numbers.fixed(v, 2),
    numbers.percent(v / 1e6), numbers.clock(Math.abs(v))]),
}));
"""


def test_the_page_says_the_same() -> None:
    node = shutil.which("node")
    if node is None:
        if os.environ.get("CI"):
            pytest.fail("node is not installed: `make tools` installs it")
        pytest.skip("node is not installed")
    made = random.Random(5)
    pairs = [made_pair(made) for _ in range(200)]
    samples = [made_sample(made, place) for place in range(300)]
    recent = [(made.uniform(-5, 50), 400.0 * place) for place in range(200)]
    values = [made.choice((1, -1)) * 10 ** made.uniform(-1, 13) for _ in range(500)] + [0, 1]
    lines = [[{"state": made.choice(("ok", "down"))} for _ in range(made.randint(0, 3))] for _ in range(20)]
    asked = {"pairs": pairs, "samples": samples, "recent": recent, "values": values, "lines": lines}
    done = subprocess.run(
        [node, "--input-type=module", "--no-warnings", "-e", SCRIPT.replace('"./', f'"{JS.as_uri()}/')],
        input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)
    for (before, now), found in zip(pairs, theirs["pairs"], strict=True):
        told = between(before, now)
        assert (told.messages, told.duplicates) == (found["messages"], found["duplicates"])
        wire, engine = told.exchange_to_engine, told.inside_engine
        page = found["wire"]
        ours = (wire.p50_us, wire.p99_us, wire.error_us, wire.hidden)
        assert ours == (page["p50Us"], page["p99Us"], page["errorUs"], page["hidden"])
        assert (engine.p50_us, engine.p99_us) == (found["engine"]["p50Us"], found["engine"]["p99Us"])
    clock, held = ClockBound(5), Recent(50)
    for sample, found in zip(samples, theirs["clocks"], strict=True):
        clock.add(*sample)
        assert clock.now == (found["offsetMs"], found["errorMs"])
    for (value, ms), found in zip(recent, theirs["recent"], strict=True):
        held.add(value, ms / 1e3)
        assert held.quantiles((0.5, 0.99), ms / 1e3) == found
    assert [line_state(each) for each in lines] == theirs["lines"]
    for value, found in zip(values, theirs["words"], strict=True):
        words = [numbers.duration(value), numbers.compact(value), numbers.whole(value)]
        words += [numbers.fixed(value, 2), numbers.percent(value / 1e6), numbers.clock(abs(value))]
        assert words == found, value


def made_pair(made: random.Random) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Two answers of one engine, of two, or only one."""

    def answer(timestamp: float, started_at: float, least: dict[str, Any] | None) -> dict[str, Any]:
        def counts(name: str) -> list[int]:
            floor = least[name]["counts"] if least else [0] * (len(BOUNDS) + 1)
            return [was + made.choice((0, 0, 1, 7, 900)) for was in floor]

        def counter(name: str) -> dict[str, int]:
            floor = least[name] if least else {"trade": 0, "quote": 0}
            return {stream: was + made.randint(0, 500) for stream, was in floor.items()}

        floor = least["exchange_to_engine"]["ahead"] if least else 0
        clock = {"offset_ms": made.uniform(-9, 9), "error_ms": made.uniform(0, 2)}
        return {
            "timestamp": timestamp, "started_at": started_at,
            "messages": counter("messages"), "accepted": counter("accepted"),
            "duplicates": counter("duplicates"), "clock": made.choice((None, clock)),
            "exchange_to_engine": {
                "bounds_us": BOUNDS, "counts": counts("exchange_to_engine"),
                "ahead": floor + made.randint(0, 900),
            },
            "inside_engine": {"bounds_us": BOUNDS, "counts": counts("inside_engine")},
        }  # fmt: skip

    before = answer(1_000.0, 1.0, None)
    kind = made.randrange(5)
    if kind == 0:
        return None, before
    now = answer(1_000.0 + (0 if kind == 1 else made.uniform(100, 3_000)), 2.0 if kind == 2 else 1.0, before)
    return before, now


def made_sample(made: random.Random, place: int) -> tuple[float, float, float, float]:
    """A request and its answer; the engine's clock is set now and then."""
    sent = 1_000.0 * place
    offset = 250.0 if place // 40 % 2 else -30.0
    asked = sent + offset + made.uniform(0, 9)
    answered = asked + made.uniform(0, 2)
    return sent, asked, answered, answered - offset + made.uniform(0, 9)
