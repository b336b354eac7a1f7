"""The judge of the worlds: a world that holds, and what it says when one thing in it is changed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.worlds.checks import Tape, check
from tests.worlds.plan import plan_of
from tests.worlds.world import Broken, Story, live
from tradeback.model.record import AGG, GAP, LATE, QUOTE, STAND_IN, TRADE

PLAIN = 4_004
"""Two symbols or more, two lines, a subscriber, no restart: line faults only."""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return live(plan_of(PLAIN), tmp_path_factory.mktemp("plain"))


def _some(tape: Tape, kind: int) -> int:
    """The place of a record in the middle of those of a kind."""
    places = np.flatnonzero((tape.rows["kind"] == kind) & (tape.rows["flags"] & (STAND_IN | LATE) == 0))
    return int(places[len(places) // 2])


def _without(tape: Tape, place: int) -> None:
    tape.rows = np.delete(tape.rows, place)
    tape.places = np.delete(tape.places, place)


def _twice(tape: Tape, place: int) -> None:
    row = tape.rows[place : place + 1].copy()
    row["flags"] |= LATE
    tape.rows = np.insert(tape.rows, place + 1, row)
    tape.places = np.insert(tape.places, place + 1, tape.places[place])


def _change(field: str, by: float) -> Callable[[Tape, int], None]:
    def change(tape: Tape, place: int) -> None:
        tape.rows = tape.rows.copy()
        tape.rows[field][place] += by

    return change


def _swap(tape: Tape, place: int) -> None:
    tape.rows = tape.rows.copy()
    same = (tape.rows["kind"] == TRADE) & (tape.rows["symbol_id"] == tape.rows["symbol_id"][place])
    following = int(np.flatnonzero(same[place + 1 :])[0]) + place + 1
    tape.rows[[place, following]] = tape.rows[[following, place]]


def test_a_world_that_holds(story: Story) -> None:
    check(story)
    assert sum(len(told.trades) for told in story.told.values()) > 100
    assert story.seen


@pytest.mark.parametrize(
    ("kind", "harm", "words"),
    [
        (TRADE, _without, "what arrived on any line is on the tape"),
        (TRADE, _twice, "a trade is on the tape once"),
        (TRADE, _change("price", 1e-8), "values are exact"),
        (TRADE, _change("quantity", 1e-8), "values are exact"),
        (TRADE, _change("exchange_us", 1), "values are exact"),
        (TRADE, _change("id", 1_000_000), "every trade on the tape happened"),
        (TRADE, _swap, "trades are in order unless LATE"),
        (QUOTE, _change("ask", 1e-8), "quotes are exact"),
        (QUOTE, _twice, "quotes rise"),
        (AGG, _change("ask_quantity", 1), "aggregates are exact"),
        (AGG, _twice, "an aggregate is there once"),
    ],
)
def test_what_is_changed_is_noticed(
    story: Story, kind: int, harm: Callable[[Tape, int], None], words: str
) -> None:
    tape = Tape(story)
    harm(tape, _some(tape, kind))
    with pytest.raises(Broken, match=words):
        check(story, tape)


def test_a_subscriber_that_misses_a_trade_is_noticed(story: Story) -> None:
    frames = story.seen[0].watcher.frames
    held = list(frames)
    try:
        del frames[len(frames) // 2]
        story.seen[0].frames -= 1
        with pytest.raises(Broken, match="a subscriber sees every trade of the tape once"):
            check(story)
    finally:
        frames[:] = held
        story.seen[0].frames += 1


def test_an_error_in_the_log_is_noticed(story: Story) -> None:
    story.logs.append(("error", "something broke", {}))
    try:
        with pytest.raises(Broken, match="no errors are logged"):
            check(story)
    finally:
        story.logs.pop()


def test_damage_on_the_disk_is_noticed(story: Story) -> None:
    tape = Tape(story)
    epoch, first, rows = tape.pieces[0]
    harmed = rows.copy()
    harmed["price"][3] += 1
    tape.pieces[0] = (epoch, first, harmed)
    with pytest.raises(Broken, match="every record is intact"):
        check(story, tape)


def test_work_is_in_a_folder_of_its_own(story: Story) -> None:
    assert isinstance(story.folder, Path)
    assert (story.folder / "tape").is_dir()


def test_a_hole_that_nobody_knows_of_is_noticed(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even of trades that never arrived."""
    monkeypatch.setattr(story.witness, "sent", [])
    tape = Tape(story)
    _without(tape, _some(tape, TRADE))
    with pytest.raises(Broken, match="what is missing lies in a gap"):
        check(story, tape)


@pytest.mark.parametrize(
    ("state", "words"), [(1, "every gap is closed at the end"), (3, "what REST has is repaired")]
)
def test_a_gap_in_the_wrong_end_state_is_noticed(
    story: Story, monkeypatch: pytest.MonkeyPatch, state: int, words: str
) -> None:
    monkeypatch.setattr(story.witness, "sent", [])
    tape = Tape(story)
    place = _some(tape, TRADE)
    gap = tape.rows[place : place + 1].copy()
    gap["kind"], gap["ask"], gap["ask_quantity"], gap["quantity"] = GAP, gap["id"], TRADE, state
    _without(tape, place)
    tape.rows = np.append(tape.rows, gap)
    tape.places = np.append(tape.places, tape.places[-1] + 1)
    with pytest.raises(Broken, match=words):
        check(story, tape)
