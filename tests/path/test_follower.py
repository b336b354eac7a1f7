"""path/follower: what another process writes arrives once, in order, and never before it is published."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.derive.world import make_trades, rows_of
from tests.tape.helpers import config, flip
from tradeback.model.record import Rows, empty_rows, seal
from tradeback.path import follower as module
from tradeback.path.follower import Follower
from tradeback.tape.segment import list_segments
from tradeback.tape.writer import Tape

HOT_ROWS = 256


@pytest.fixture
def rows() -> Rows:
    return rows_of(make_trades(5, 1_500, symbols=3))


@pytest.fixture
def tape(tmp_path: Path) -> Iterator[Tape]:
    with Tape.open(tmp_path, config(rows_per_segment=100)) as opened:
        yield opened


def following(tape: Tape) -> Follower:
    follower = Follower(tape.folder, HOT_ROWS, lambda: tape.next_sequence)
    follower.begin(tape.next_sequence)
    return follower


def pulled(follower: Follower) -> Rows:
    """All that comes now, copied from the ring as a reader sees it."""
    found = [empty_rows(0)]
    while count := follower.pull():
        place = (follower.next_sequence - count) & (HOT_ROWS - 1)
        assert place + count <= HOT_ROWS, "contiguous"
        found.append(follower.rows[place : place + count].copy())
    return np.concatenate(found)


def test_everything_arrives_across_segments_and_the_rings_end(tape: Tape, rows: Rows) -> None:
    follower, rng, done = following(tape), random.Random(7), 0
    assert follower.pull() == 0
    while done < len(rows):
        count = rng.choice((1, 2, 7, 60, 300))
        tape.append(rows[done : done + count])
        got = pulled(follower)
        expected = rows[done : done + count].copy()
        seal(expected, done + 1, tape.epoch)
        assert got.tobytes() == expected.tobytes()
        done += count
    assert (follower.next_sequence, follower.epoch) == (tape.next_sequence, tape.epoch)
    assert follower.behind == follower.passed_over == follower.stepped_back == 0
    follower.close()


def test_nothing_comes_before_it_is_published(tape: Tape, rows: Rows) -> None:
    published = 1
    follower = Follower(tape.folder, HOT_ROWS, lambda: published)
    follower.begin(1)
    tape.append(rows[:50])
    assert follower.pull() == 0
    published = 21
    assert len(pulled(follower)) == 20
    published = 51
    assert len(pulled(follower)) == 30
    follower.close()


def test_it_is_read_like_a_tape(tape: Tape, rows: Rows) -> None:
    tape.append(rows[:700])
    expected = rows[:700].copy()
    seal(expected, 1, tape.epoch)
    follower = Follower(tape.folder, 4_096, lambda: tape.next_sequence)
    follower.begin(401)
    while follower.pull():
        pass
    for first in (1, 390, 401, 500, 690, 700, 701):
        sequence = first
        while True:
            epoch, got = follower.read_with_epoch(sequence, 64)
            assert epoch == tape.epoch
            if not len(got):
                break
            assert got.tobytes() == expected[sequence - 1 : sequence - 1 + len(got)].tobytes()
            sequence += len(got)
        assert sequence == max(first, 701)
    assert [follower.in_memory(first) for first in (1, 400, 401, 701)] == [False, False, True, True]
    assert follower.oldest_sequence == tape.oldest_sequence
    assert follower.resume(tape.epoch, 650) == (tape.epoch, 650)
    assert follower.resume(tape.epoch, 3) == (tape.epoch, 3)
    follower.close()


def test_a_writer_that_comes_back_is_followed(tmp_path: Path, rows: Rows) -> None:
    Tape.open(tmp_path, config(rows_per_segment=100)).close()
    head = [1]
    follower = Follower(tmp_path, HOT_ROWS, lambda: head[0])
    follower.begin(1)
    for start in range(0, 600, 150):
        with Tape.open(tmp_path, config(rows_per_segment=100)) as tape:
            follower.check()
            tape.append(rows[start : start + 150])
            head[0] = tape.next_sequence
            assert len(pulled(follower)) == 150
    assert follower.next_sequence == 601
    follower.close()


def test_a_tape_that_has_lost_its_tail_is_followed_from_there(tmp_path: Path, rows: Rows) -> None:
    """As after a crash of the machine: damage at record 61, which the next writer cuts, with a new epoch."""
    head = 1
    with Tape.open(tmp_path, config(rows_per_segment=1_000)) as tape:
        epoch = tape.epoch
        tape.append(rows[:100])
        head = tape.next_sequence
    follower = Follower(tmp_path, HOT_ROWS, lambda: head)
    follower.begin(1)
    assert len(pulled(follower)) == 100
    flip(list_segments(tmp_path)[-1].path, 64 + 64 * 60 + 20)
    state = (tmp_path / "state.json").read_text()
    state = state.replace('"clean": true', '"clean": false').replace('"boot_id": "', '"boot_id": "other-')
    (tmp_path / "state.json").write_text(state)
    with Tape.open(tmp_path, config(rows_per_segment=1_000)) as tape:
        assert tape.next_sequence == 61
        assert tape.epoch != epoch
        head = tape.next_sequence
        follower.check()
        assert (follower.next_sequence, follower.stepped_back) == (61, 40)
        tape.append(rows[200:250])
        head = tape.next_sequence
        assert pulled(follower)["id"].tolist() == rows["id"][200:250].tolist()
        assert follower.epoch == tape.epoch
    follower.close()


def test_a_damaged_record_is_passed_over_and_counted(
    tape: Tape, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape.append(rows[:50])
    flip(list_segments(tape.folder)[-1].path, 64 + 64 * 30 + 20)
    follower = Follower(tape.folder, HOT_ROWS, lambda: tape.next_sequence)
    follower.begin(1)
    assert len(pulled(follower)) == 30
    assert follower.pull() == 0, "it may still come"
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    got = pulled(follower)
    if not len(got):
        got = pulled(follower)
    assert got["id"].tolist() == rows["id"][31:50].tolist()
    assert follower.passed_over == 1
    assert int(follower.rows["kind"][31]) == 0, "the slot holds nothing"
    follower.close()


def test_what_retention_has_removed_is_passed_over(
    tape: Tape, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = following(tape)
    tape.append(rows[:250])
    list_segments(tape.folder)[0].path.unlink()
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    got = empty_rows(0)
    while follower.behind:
        got = np.concatenate((got, pulled(follower)))
    assert got["id"].tolist() == rows["id"][100:250].tolist()
    assert follower.passed_over == 100
    follower.close()
