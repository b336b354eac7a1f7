"""The verdict over all series, and the page that shows it."""

import re
from html.parser import HTMLParser
from math import nan

import pytest

from benchmarks.soak.judge import FLAT, RISES, TOO_SHORT, ZERO, judge
from benchmarks.soak.page import About, cells, page, words_of
from benchmarks.soak.plot import Curve, chart, decades, duration, thinned, ticks
from benchmarks.soak.samples import Samples

SECONDS = 120
ABOUT = About("2026-01-02T03:04:05+00:00", "python -m benchmarks.soak <b>", {"processor": "x & y"}, "a load")


def samples(**rising: float) -> Samples:
    """Two minutes of a healthy engine; `rising`: what grows by so much a second."""
    made = Samples()
    for second in range(SECONDS):
        values = {"rss:engine": 150.0, "rss:recorder": 100.0, "pss": 220.0, "fds:engine": 40.0 + second % 2}
        values |= {"tasks:engine": 20.0, "threads:engine": 9.0, "client:p99:v2 all": 300.0 + second % 7}
        if second % 5 == 0:
            values |= {"publish:p50": 30.0, "publish:p99": 90.0, "aborted": 0.0}
        values |= dict.fromkeys(ZERO.keys() - {"aborted"}, 0.0)
        for name, growth in rising.items():
            values[name] = values.get(name, 0.0) + growth * second
        made.add(float(second), values)
    return made


def test_a_healthy_run_passes() -> None:
    verdict = judge(samples(), [])
    assert (verdict.passed, verdict.wrong, words_of(verdict)) == (True, [], "flat, and nothing lost")
    assert {row.verdict for row in verdict.rows} == {FLAT}
    assert [row.name for row in verdict.rows][:3] == [
        "memory (RSS), engine", "memory (RSS), recorder", "memory of all (PSS)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "growth"),
    [("rss:engine", 0.1), ("pss", 0.1), ("fds:engine", 0.1), ("tasks:engine", 0.1), ("threads:engine", 0.1),
     ("publish:p99", 2.0), ("client:p99:v2 all", 5.0)],
)  # fmt: skip
def test_one_series_that_rises_fails_and_is_named(name: str, growth: float) -> None:
    verdict = judge(samples(**{name: growth}), [])
    risen = [row for row in verdict.rows if row.verdict == RISES]
    assert len(risen) == 1
    assert verdict.wrong == [f"{risen[0].name} rises"]
    assert not verdict.passed


@pytest.mark.parametrize("name", ZERO)
def test_every_loss_fails(name: str) -> None:
    made = samples()
    made.columns[name][-1] = 3.0
    assert judge(made, []).wrong == [f"{ZERO[name]}: 3"]


@pytest.mark.parametrize(("level", "growth"), [(30.0, 0.0), (0.0, 0.2)])
@pytest.mark.parametrize(
    ("name", "process", "doubtful"),
    [("publish:p99", "engine", True), ("publish:p99", "clients", False), ("rss:engine", "engine", False),
     ("client:p99:v2 all", "clients", True), ("client:p99:v2 all", "engine", True)],
)  # fmt: skip
def test_a_latency_that_rises_where_others_have_the_core_is_in_doubt(
    name: str, process: str, doubtful: bool, level: float, growth: float
) -> None:
    made = samples(**{name: 5.0})
    column = [level + growth * time + second % 2 for second, time in enumerate(made.times)]
    made.columns[f"held:{process}"] = column
    (words,) = judge(made, []).wrong
    assert (f" rises (in doubt: {process} waits for a core" in words) == doubtful
    assert "rises" in words


def test_a_count_that_nobody_took_fails() -> None:
    made = samples()
    del made.columns["lost"]
    assert judge(made, []).wrong == ["trades lost: not measured"]


def test_notes_fail_and_so_does_a_run_that_is_too_short() -> None:
    assert judge(samples(), ["recorder was started again after 7 s"]).wrong == [
        "recorder was started again after 7 s"
    ]
    brief = samples()
    brief.times = brief.times[:9]
    brief.columns = {name: column[:9] for name, column in brief.columns.items()}
    verdict = judge(brief, [])
    assert not verdict.passed
    assert verdict.rows[0].verdict == TOO_SHORT
    assert cells(verdict.rows[0]) == [
        "memory (RSS), engine (MB)", "150.0", "-", "150.0", "-", "-", "-", TOO_SHORT,
    ]  # fmt: skip


class Reading(HTMLParser):
    """Counts tags, and insists that each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for name, value in attrs:
            assert name not in ("src", "href"), f"the page must need nothing else: {tag} {name}={value}"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    made = samples(**{"rss:engine": 0.1})
    text = page(ABOUT, made, judge(made, []))
    read = Reading()
    read.feed(text)
    read.close()
    assert read.open == []
    assert read.seen.count("svg") == 7, "memory, publish, clients, files, tasks, threads, losses"
    assert "http" not in text
    for words in (
        "memory (RSS), engine rises",
        "python -m benchmarks.soak <b>",
        "x & y",
        "2.0 minutes, a load",
    ):
        assert words in read.text
    assert "nan" not in text.lower().replace("unanswered", "")


def test_a_run_without_a_sample_makes_a_page_too() -> None:
    text = page(ABOUT, Samples(), judge(Samples(), ["the engine ended"]))
    assert "the engine ended" in text


def points(svg: str) -> list[list[tuple[float, float]]]:
    """The points of every polyline."""
    return [
        [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())]
        for line in re.findall(r'points="([^"]+)"', svg)
    ]


def test_a_curve_runs_from_edge_to_edge_and_higher_is_higher() -> None:
    (line,) = points(chart([0.0, 1.0, 2.0], [Curve("a", [0.0, 5.0, 10.0])]))
    xs, ys = zip(*line, strict=True)
    assert (xs[0], xs[-1]) == (62.0, 836.0)
    assert ys == (214.0, 111.0, 8.0)


def test_a_logarithmic_axis_gives_every_decade_the_same_room() -> None:
    (line,) = points(chart([0.0, 1.0, 2.0, 3.0], [Curve("a", [10.0, 100.0, 1_000.0, 0.0])], logarithmic=True))
    assert [y for _, y in line] == [214.0, 111.0, 8.0, 214.0]


@pytest.mark.parametrize(
    ("least", "most", "wanted"),
    [(10, 1_000, [10, 100, 1_000]), (11, 999, [10, 100, 1_000]), (5, 5, [1, 10]), (nan, nan, [1, 10])],
)
def test_decades(least: float, most: float, wanted: list[float]) -> None:
    assert decades(least, most) == pytest.approx(wanted)


def test_gaps_are_bridged_and_names_escaped() -> None:
    svg = chart([0.0, 1.0, 2.0], [Curve("<a>", [1.0, nan, 1.0]), Curve("none", [nan] * 3)])
    assert [len(line) for line in points(svg)] == [2]
    assert "&lt;a&gt;" in svg
    assert "<a>" not in svg


def test_thinning_keeps_every_spike() -> None:
    values = [1.0] * 10_000
    values[5_678] = 99.0
    kept = thinned([float(place) for place in range(10_000)], values)
    assert len(kept) <= 800
    assert (5_678.0, 99.0) in kept
    assert kept == sorted(kept)


@pytest.mark.parametrize("most", [0.03, 1.0, 7.0, 9.99, 10.0, 150.0, 1_234_567.0])
def test_ticks_are_round_and_reach_the_top(most: float) -> None:
    found = ticks(most)
    assert found[0] == 0
    assert found[-2] < most <= found[-1]
    assert 3 <= len(found) <= 6


def test_ticks_of_nothing() -> None:
    assert ticks(0.0) == ticks(nan) == [0.0, 1.0]


def test_durations() -> None:
    assert [duration(seconds) for seconds in (60, 300, 7_200, 9_000)] == ["60 s", "5 min", "2 h", "2.5 h"]
