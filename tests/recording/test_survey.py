"""What a recording holds, and what it lacks."""

from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.recording.tools import A_TRADE, B_TRADE, START_NS, agg, take, writing
from tradeback.recording.part_file import mend
from tradeback.recording.reading import list_sources
from tradeback.recording.survey import Runs, survey


@given(st.lists(st.integers(0, 40), min_size=1))
def test_holes_are_what_a_set_says(numbers: list[int]) -> None:
    runs = Runs()
    for number in numbers:
        runs.add(number)
    held = set(numbers)
    missing = set(range(min(held), max(held) + 1)) - held
    holes = runs.holes()
    assert {number for first, last in holes for number in range(first, last + 1)} == missing
    assert all(before[1] + 1 < after[0] for before, after in pairwise(holes))


async def test_a_hole_of_one_line_is_none_of_the_recording(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        take(writer.track(A_TRADE), [*range(10), *range(20, 30)])
        take(writer.track(B_TRADE), [*range(5, 18), *range(19, 35)])
    found = survey(list_sources(tmp_path))
    assert found.missing == {"btcusdt@trade": [(18, 18)]}
    told = found.as_json()
    assert told["streams"]["btcusdt@trade"] == {
        "first_id": 0, "last_id": 34, "missing": 1, "holes": [(18, 18)],
    }  # fmt: skip
    assert told["frames"] == 49
    a, b = found.connections
    assert (a.name, a.frames, a.first_ns, a.last_ns) == ("a:trade:0", 20, START_NS, START_NS + 29_000)
    assert (b.frames, b.endings) == (29, ["stopped"])


async def test_ids_are_looked_for_per_kind(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        track = writer.track(A_TRADE)
        take(track, range(3))
        for number in (100, 102):
            track.take(b"%d " % START_NS, agg(number))
    assert survey(list_sources(tmp_path)).missing == {"btcusdt@aggTrade": [(101, 101)]}


async def test_connections_drops_and_steps_of_the_clock(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        track = writer.track(A_TRADE)
        track.mark(START_NS, "connected")
        take(track, range(3))
        track.mark(START_NS + 5_000, "lost", reason="cut")
        track.mark(START_NS + 6_000, "lost", reason="refused")
        track.mark(START_NS + 9_000, "connected")
        take(track, [1], START_NS - 50_000)
        track.mark(START_NS, "dropped", frames=7)
    (one,) = survey(list_sources(tmp_path)).connections
    assert (one.connects, one.dropped, one.steps_back) == (2, 7, 1)
    assert one.away[0] == (START_NS + 5_000, START_NS + 9_000, "cut")


async def test_a_killed_recorder_and_one_at_work(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        take(writer.track(A_TRADE), range(100))
    (file,) = tmp_path.iterdir()
    raw = file.read_bytes()
    file.unlink()
    part = tmp_path / f".{file.name}.part"
    part.write_bytes(raw[:-20])
    (one,) = survey(list_sources(tmp_path)).connections
    assert one.endings == ["open"]
    mend(tmp_path, START_NS)


def test_recordings_of_others_have_ids_too(shared_folder: Path) -> None:
    folder = shared_folder / "data/binance/spot_ws"
    found = survey(list_sources(folder, "btcusdt_2024*"))
    assert found.missing == {}
    assert sum(one.frames for one in found.connections) > 60_000
