"""`tradeback doctor`: a quick look at the tape, where there is one; `tradeback tape verify` reads it all."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tradeback.cli.doctor import Finding
from tradeback.model.errors import StartupError, TapeError
from tradeback.model.limits import BATCH_ROWS_MAX
from tradeback.model.record import count_intact
from tradeback.tape.reader import TapeReader
from tradeback.tape.segment import CHECK_ROWS, Segment

if TYPE_CHECKING:
    from tradeback.model.config import Config

SETTLE_S: Final = 0.05
LOOK_S: Final = 2.0
"""How long records are read, the newest first; every header and every joint is looked at in any case."""


def check_tape(config: "Config") -> Finding:
    """Headers, joints between segments, and the newest records. Changes nothing."""
    folder = Path(config.data_dir) / "tape"
    try:
        reader = TapeReader(folder)
    except TapeError:
        return Finding("tape", "ok", f"{folder}: none yet, the engine makes it")
    except StartupError as error:
        found, _, remedy = str(error).partition(": ")
        return Finding("tape", "fail", found, remedy)
    except OSError as error:
        remedy = "make it readable for this user, or choose another with DATA_DIR"
        return Finding("tape", "fail", f"{folder}: {error.strerror}", remedy)
    try:
        return _judge(reader)
    except OSError as error:
        remedy = "look at the disk, and at the rights of the files"
        return Finding("tape", "fail", f"{folder}: {error.strerror}", remedy)


def _judge(reader: TapeReader) -> Finding:
    first, after = reader.oldest_sequence, reader.next_sequence
    looked, damage, torn = _look(reader)
    faults = _faults_of_files(reader) + damage
    whole = f"records {first} to {after - 1}" if first < after else "no records"
    found = f"{reader.folder}: {whole} in {_files(len(reader.segments()))}, the newest {looked:,} read"
    if faults:
        remedy = f"`tradeback tape verify --data-dir {reader.folder.parent}` names all that is damaged"
        return Finding("tape", "fail", f"{found}; {faults[0]}", remedy)
    if torn:
        words = f"{found}; {torn}"
        return Finding("tape", "warn", words, "start the engine: it cuts them, and fetches what it can again")
    return Finding("tape", "ok", found)


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def _faults_of_files(reader: TapeReader) -> list[str]:
    """Damaged headers, and files that do not join."""
    segments = reader.segments()
    found = []
    for segment, following in zip(segments, [*segments[1:], None], strict=True):
        try:
            if segment.header() is None:
                found.append(f"{segment.path.name} has a damaged header")
            elif following is not None and segment.first + segment.row_count() != following.first:
                found.append(f"{segment.path.name} does not join {following.path.name}")
        except FileNotFoundError:
            continue  # retired meanwhile
    return found


def _look(reader: TapeReader) -> tuple[int, list[str], str]:
    """Read records from the newest file backwards for LOOK_S; how many, what is damaged, what is torn."""
    end_s = time.monotonic() + LOOK_S
    looked, torn = 0, ""
    for place, segment in enumerate(reversed(reader.segments())):
        try:
            count, bad = _look_at(segment, end_s)
        except (FileNotFoundError, TapeError):
            continue  # retired meanwhile, or with a header that is told anyway
        looked += count
        if bad is not None:
            held = segment.row_count()
            words = f"record {segment.first + bad} in {segment.path.name} is damaged"
            if place or held - bad > BATCH_ROWS_MAX:
                return looked, [words], torn
            torn = f"the last {held - bad} are torn"
        if time.monotonic() > end_s:
            break
    return looked, [], torn


def _look_at(segment: Segment, end_s: float) -> tuple[int, int | None]:
    """Records from the end of a file; how many were read, and the row of the first bad one of a piece."""
    held = after = segment.row_count()
    while after > 0 and (after == held or time.monotonic() < end_s):
        first = max(0, after - CHECK_ROWS)
        bad = _first_bad(segment, first, after)
        if bad is not None:
            time.sleep(SETTLE_S)  # it may have been in writing
            bad = _first_bad(segment, first, after)
        after = first
        if bad is not None:
            return held - after, bad
    return held - after, None


def _first_bad(segment: Segment, first: int, after: int) -> int | None:
    rows = segment.load(first, after - first)
    good = count_intact(rows, segment.first + first, segment.epoch)
    return first + good if good < len(rows) else None
