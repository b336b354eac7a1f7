"""Opening a tape folder after any end of the last session: what is kept, what is cut, which epoch goes on.

A killed process (kill -9) leaves at most a partial record at the end: it is cut, and the epoch stays,
for nobody was shown that record. Whole records that fail their checksum, or a machine that crashed
(boot id changed, no clean end), may mean that records were lost which somebody has seen: then a new
epoch begins. The order of steps matters: state.json names the new epoch before anything is cut, so
that a crash in between cannot lead back to the old epoch at an earlier sequence.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from tradeback.model.record import ROW_BYTES
from tradeback.tape.segment import (
    Segment,
    create_segment,
    list_segments,
    offset_of,
    sync_folder,
    write_all,
)
from tradeback.tape.state import State, boot_id, load_state, new_epoch, save_state

CUT_SUFFIX: Final = ".cut"
_COPY_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Opened:
    """A folder ready for writing."""

    state: State
    segments: tuple[Segment, ...]
    """All segments in order; the last is the current one, with its header, of epoch `state.epoch`."""
    next_sequence: int
    notes: tuple[str, ...]
    """What was found and done, one plain sentence each; empty after a clean end."""


class _Survey(NamedTuple):
    kept: tuple[Segment, ...]
    lost: tuple[Segment, ...]
    """Segments behind the damage."""
    rows: int
    """Intact records of the last kept segment."""
    damage: str
    """What is wrong with the last kept segment, or with its place before the lost ones; "" if nothing."""


def recover(folder: Path, now_ns: int) -> Opened:
    """Make the locked `folder` ready for appending; raises OSError when it cannot be written."""
    notes: list[str] = []
    _remove_leftovers(folder)
    state = load_state(folder)
    segments = _without_torn_headers(list_segments(folder), notes)
    survey = _survey(segments, state)
    next_sequence = _next_sequence(survey, state)
    epoch = _choose_epoch(survey, state, notes)
    state = _new_state(state, survey, epoch, next_sequence)
    save_state(folder, state)
    kept = _cut(survey, notes)
    if kept and kept[-1].epoch != epoch and kept[-1].row_count() == 0:
        kept[-1].path.unlink()
        kept = kept[:-1]
    if not kept or kept[-1].epoch != epoch:
        kept = (*kept, _create(folder, epoch, next_sequence, now_ns))
    sync_folder(folder)
    return Opened(state, kept, next_sequence, tuple(notes))


def shorten(segment: Segment, rows: int) -> None:
    """Keep only the first `rows` records of `segment`, by a new file in its place.

    Not by truncating: another process may have the file mapped.
    """
    temporary = segment.path.with_name(f".{segment.path.name}.tmp")
    _copy(segment.path, 0, offset_of(rows), temporary)
    os.replace(temporary, segment.path)
    segment.index_path.unlink(missing_ok=True)
    sync_folder(segment.path.parent)


def _remove_leftovers(folder: Path) -> None:
    """Files that were being made, and indexes whose segment retention had just removed."""
    indexes = set(folder.glob("*.index")) - {segment.index_path for segment in list_segments(folder)}
    for path in (*folder.glob(".*.tmp"), *indexes):
        path.unlink(missing_ok=True)


def _without_torn_headers(segments: tuple[Segment, ...], notes: list[str]) -> tuple[Segment, ...]:
    """Remove newest segments that end within their header: created, never written to."""
    while segments and segments[-1].row_count() == 0 and segments[-1].header() is None:
        segments[-1].path.unlink()
        notes.append(f"removed {segments[-1].path.name}: its header was never finished")
        segments = segments[:-1]
    return segments


def _survey(segments: tuple[Segment, ...], state: State | None) -> _Survey:
    """Verify what may not have reached the disk: the newest segment, and earlier ones not yet synced."""
    last = len(segments) - 1
    begin = last
    while state is not None and begin > 0 and segments[begin].first > state.synced_before:
        begin -= 1
    rows = 0
    for place in range(max(begin, 0), len(segments)):
        segment = segments[place]
        held = segment.row_count()
        rows = segment.count_intact() if segment.header() is not None else 0
        damage = ""
        if rows < held:
            damage = f"record {segment.first + rows} in {segment.path.name} fails its checksum"
        elif place < last and segment.first + rows != segments[place + 1].first:
            damage = f"{segment.path.name} ends before record {segments[place + 1].first}"
        if damage:
            return _Survey(segments[: place + 1], segments[place + 1 :], rows, damage)
    return _Survey(segments, (), rows, "")


def _next_sequence(survey: _Survey, state: State | None) -> int:
    if survey.kept:
        return survey.kept[-1].first + survey.rows
    return max(state.synced_before, state.epochs[-1][1]) if state is not None else 1


def _choose_epoch(survey: _Survey, state: State | None, notes: list[str]) -> int:
    """The epoch of the next record, which may be new; says in `notes` why."""
    why = ""
    boot = boot_id()
    if survey.damage:
        why = survey.damage
    elif state is None:
        why = "state.json is missing" if survey.kept else ""
    elif not survey.kept:
        why = "the segments are gone"
    elif not state.clean and (not boot or state.boot_id != boot):
        why = "the machine stopped without a clean end of the tape"
    if state is not None and not why:
        return state.epoch
    epoch = new_epoch(_epochs_used(survey, state))
    if why:
        notes.append(f"{why}: what may have been lost had been sent, so epoch {epoch:08x} begins")
    return epoch


def _epochs_used(survey: _Survey, state: State | None) -> set[int]:
    used = {segment.epoch for segment in (*survey.kept, *survey.lost)}
    return used | {epoch for epoch, _ in state.epochs} if state is not None else used


def _new_state(state: State | None, survey: _Survey, epoch: int, next_sequence: int) -> State:
    if state is not None:
        epochs = list(state.epochs)
        synced_before = min(state.synced_before, next_sequence)
    else:
        epochs = []
        for segment in survey.kept:
            if not epochs or epochs[-1][0] != segment.epoch:
                epochs.append((segment.epoch, segment.first))
        synced_before = survey.kept[-1].first if survey.kept else 1
    if epochs and epochs[-1][0] == epoch:
        first = epochs[-1][1]
        epochs[-1] = (epoch, min(first, next_sequence))
    else:
        epochs.append((epoch, next_sequence))
    return State(
        epoch=epoch,
        epochs=tuple(epochs),
        boot_id=boot_id(),
        clean=False,
        synced_before=synced_before,
    )


def _cut(survey: _Survey, notes: list[str]) -> tuple[Segment, ...]:
    """Cut the end of the last kept segment; what was whole records is set aside in .cut files."""
    for segment in reversed(survey.lost):
        _set_aside(segment, notes)
    if not survey.kept:
        return ()
    segment = survey.kept[-1]
    if survey.damage and survey.rows == 0:
        _set_aside(segment, notes)
        return survey.kept[:-1]
    end = offset_of(survey.rows)
    size = segment.size()
    if size - end >= ROW_BYTES:
        aside = segment.path.with_name(f"{segment.path.stem}.{survey.rows}{CUT_SUFFIX}")
        _copy(segment.path, end, size, aside)
        sync_folder(aside.parent)
        shorten(segment, survey.rows)
        notes.append(
            f"cut {size - end} bytes behind record {segment.first + survey.rows - 1} into {aside.name}"
        )
    elif size > end:
        os.truncate(segment.path, end)
        notes.append(f"cut a record of which only {size - end} bytes had been written")
    return survey.kept


def _set_aside(segment: Segment, notes: list[str]) -> None:
    aside = segment.path.with_suffix(CUT_SUFFIX)
    segment.index_path.unlink(missing_ok=True)
    os.replace(segment.path, aside)
    notes.append(f"set {segment.path.name} aside as {aside.name}")


def _create(folder: Path, epoch: int, first: int, now_ns: int) -> Segment:
    segment = Segment.named(folder, epoch, first)
    temporary = folder / f".{segment.path.name}.tmp"
    os.close(create_segment(segment, now_ns, temporary))
    os.replace(temporary, segment.path)
    return segment


def _copy(source: Path, start: int, end: int, target: Path) -> None:
    """Copy bytes `start` to `end` of a file into a new one, synced."""
    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        while start < end:
            piece = os.pread(reading, min(_COPY_BYTES, end - start), start)
            write_all(writing, piece)
            start += len(piece)
            if not piece:
                break
        os.fsync(writing)
    finally:
        os.close(reading)
        os.close(writing)
