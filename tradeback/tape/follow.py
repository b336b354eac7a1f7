"""A tape that follows another one: the same records under the same epochs and sequences.

Its author is another machine, which gives its records out again. So nothing that a crash costs here is lost,
and no new epoch need begin: the folder is brought to whole records, and goes on behind them in the epoch in
which it stands. `Tape.open` comes after these calls and finds nothing to mend. They take the folder's lock.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tradeback.tape.recovery import shorten
from tradeback.tape.segment import Segment, create_segment, list_segments, offset_of, sync_folder
from tradeback.tape.state import State, boot_id, load_state, lock_folder, save_state, unwritable


class Place(NamedTuple):
    """Where a tape ends: the next record has `sequence` and stands in `epoch`."""

    epoch: int
    sequence: int


def settle(folder: Path) -> Place | None:
    """Cut what a crash left, keep the epoch. Where the tape ends; None when there is none yet.

    Raises StartupError when the folder cannot be written or has a writer.
    """
    if not folder.exists():
        return None
    with _locked(folder):
        state, segments = load_state(folder), list_segments(folder)
        kept = _whole(segments, state)
        if not kept:
            _remove(segments)
            (folder / "state.json").unlink(missing_ok=True)
            return None
        last = kept[-1]
        end = last.first + last.row_count()
        synced_before = state.synced_before if state is not None else kept[0].first
        _save(folder, _epochs(kept, state), min(end, synced_before))
        return Place(last.epoch, end)


def begin(folder: Path, place: Place) -> None:
    """An empty tape whose first record has this place; what the folder held is removed."""
    with _locked(folder):
        _remove(list_segments(folder))
        _create(folder, place)
        _save(folder, [place], place.sequence)
        sync_folder(folder)


def turn(folder: Path, place: Place) -> None:
    """The author has begun another epoch at `place`: what stands from there on is removed.

    ValueError when the tape does not reach there: `begin` is what is wanted.
    """
    with _locked(folder):
        state, segments = load_state(folder), list_segments(folder)
        kept = [segment for segment in segments if segment.first < place.sequence]
        if not kept or kept[-1].first + kept[-1].row_count() < place.sequence:
            raise ValueError(f"the tape in {folder} does not reach record {place.sequence}")
        _remove(segments[len(kept) :])
        if kept[-1].first + kept[-1].row_count() > place.sequence:
            shorten(kept[-1], place.sequence - kept[-1].first)
        history = [known for known in _epochs(kept, state) if known.sequence < place.sequence]
        synced_before = state.synced_before if state is not None else kept[0].first
        _create(folder, place)
        _save(folder, [*history, place], min(place.sequence, synced_before))
        sync_folder(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = lock_folder(folder)
    try:
        yield
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        os.close(descriptor)


def _create(folder: Path, place: Place) -> None:
    """The first segment of an epoch, still empty."""
    segment = Segment.named(folder, *place)
    temporary = folder / f".{segment.path.name}.tmp"
    os.close(create_segment(segment, time.time_ns(), temporary))
    temporary.rename(segment.path)


def _whole(segments: tuple[Segment, ...], state: State | None) -> list[Segment]:
    """The segments up to the first damage, which is cut. Those that are known to be synced are not read."""
    synced_before = state.synced_before if state is not None else 0
    kept: list[Segment] = []
    for place, segment in enumerate(segments):
        following = segments[place + 1].first if place + 1 < len(segments) else None
        if following is not None and following <= synced_before:
            kept.append(segment)
            continue
        intact = segment.header() is not None
        rows = segment.count_intact() if intact else 0
        if rows or (intact and following is None):
            if segment.size() > offset_of(rows):
                shorten(segment, rows)
            kept.append(segment)
        if segment.first + rows != following:
            _remove([each for each in segments[place:] if each not in kept])
            break
    return kept


def _epochs(kept: list[Segment], state: State | None) -> list[Place]:
    """The history of epochs as far as the kept segments go."""
    history = [Place(*known) for known in state.epochs] if state is not None else []
    for segment in kept:
        if segment.epoch not in (known.epoch for known in history):
            history.append(Place(segment.epoch, segment.first))
    names = [known.epoch for known in history]
    return history[: names.index(kept[-1].epoch) + 1]


def _save(folder: Path, history: list[Place], synced_before: int) -> None:
    state = State(
        epoch=history[-1].epoch,
        epochs=tuple((known.epoch, known.sequence) for known in history),
        boot_id=boot_id(),
        clean=True,
        synced_before=synced_before,
    )
    save_state(folder, state)


def _remove(segments: tuple[Segment, ...] | list[Segment]) -> None:
    for segment in segments:
        segment.path.unlink(missing_ok=True)
        segment.index_path.unlink(missing_ok=True)
