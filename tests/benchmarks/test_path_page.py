"""benchmarks.path_page: what counts as reached, and when nothing can be said."""

import pytest

from benchmarks import path_page
from benchmarks.harness.browser import NoBrowser
from benchmarks.harness.options import Options
from benchmarks.harness.report import Report

CALM = {"fps": 60.0, "in_time": 100.0, "longest": 17.0, "tasks": 0.0, "browser": 20.0, "servers": 30.0}


def judged(
    empty_fps: float = 60.0,
    frames: float = 58.0,
    trades: float = 1_200.0,
    heap: list[float] | None = None,
    word_ms: float = 40.0,
) -> Report:
    runs = path_page._Runs()
    for paint in (120.0, 180.0):
        runs.add(path_page.COLD, paint=paint, candles=paint + 100, kb=120.0)
        runs.add(path_page.AGAIN, paint=60.0, candles=160.0, kb=4.0)
    runs.add(path_page.EMPTY, paint=word_ms)
    runs.add(path_page.EMPTY, **(CALM | {"fps": empty_fps}))
    runs.add(path_page.LIVE, **CALM, trades=trades)
    runs.add(path_page.LIVE, **(CALM | {"fps": frames}), trades=trades)
    runs.heap = list(enumerate(heap or [4.0, 4.1]))
    return path_page._report(runs, shared=False)


def test_the_slowest_visit_and_the_worst_window_count() -> None:
    paint, frames = judged(frames=31.0).checks
    assert (paint.value, paint.met) == (180.0, True)
    assert (frames.value, frames.met) == (31.0, True)
    assert not judged(frames=29.0).checks[1].met


def test_a_browser_that_cannot_draw_an_empty_page_proves_nothing() -> None:
    for report in (judged(empty_fps=40.0), judged(word_ms=400.0)):
        assert all("not quiet" in check.doubt and not check.met for check in report.checks)


def test_too_few_trades_prove_nothing() -> None:
    assert all("only 900 trades/s" in check.doubt for check in judged(trades=900.0).checks)


def test_the_heap_is_judged_when_there_is_enough_of_it() -> None:
    assert len(judged().checks) == 2
    flat = judged(heap=[3.0, 4.0, 5.0, 5.1, 5.0, 5.1, 5.0, 5.2, 5.1]).checks[2]
    assert flat.met
    rising = judged(heap=[3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]).checks[2]
    assert (rising.value, rising.met) == (3.0, False)


def test_without_a_browser_it_is_skipped_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise NoBrowser("no chromium: `make browser` installs one")

    monkeypatch.setattr(path_page, "chromium", none)
    assert "make browser" in path_page.run(Options()).skipped
