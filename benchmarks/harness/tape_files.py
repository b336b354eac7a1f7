"""What an engine's tape holds, read from its files by another process."""

from dataclasses import dataclass
from pathlib import Path

from tradeback.model.record import AGG, QUOTE, ROW_BYTES, TRADE
from tradeback.tape.segment import HEADER_BYTES, Segment, list_segments

LOAD_ROWS = 65_536


@dataclass(frozen=True)
class TapeSums:
    """Market records on a tape: how many, and the sum of their ids. Seeds and gaps are not counted."""

    rows: int
    id_sum: int
    intact: bool


def _segments(data_dir: Path) -> list[Segment]:
    folders = {path.parent for path in data_dir.rglob("*.tape")}
    return [segment for folder in sorted(folders) for segment in list_segments(folder)]


def rows_written(data_dir: Path) -> int:
    """Records in all segments, by file size alone."""
    sizes = [path.stat().st_size for path in data_dir.rglob("*.tape")]
    return sum(max(0, size - HEADER_BYTES) // ROW_BYTES for size in sizes)


def sums(data_dir: Path) -> TapeSums:
    """Read everything and verify it."""
    rows = id_sum = 0
    intact = True
    for segment in _segments(data_dir):
        held = segment.row_count()
        intact &= segment.count_intact() >= held  # seeds are still being appended
        for start in range(0, held, LOAD_ROWS):
            loaded = segment.load(start, LOAD_ROWS)
            kinds = loaded["kind"]
            market = loaded[(kinds == TRADE) | (kinds == QUOTE) | (kinds == AGG)]
            rows += len(market)
            id_sum += int(market["id"].sum())
    return TapeSums(rows, id_sum, intact)
