"""Records as CSV or Parquet, streamed: the work behind `tradeback tape export`."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Final

from tradeback.model.errors import StartupError
from tradeback.model.record import (
    BUYER_MAKER,
    KIND_NAMES,
    LATE,
    LINE_A,
    LINE_B,
    LINE_LOCAL,
    LINE_REST,
    LINE_SHIFT,
    REPAIRED,
    STAND_IN,
)
from tradeback.tape.query import Found

COLUMNS: Final = (
    "sequence", "epoch", "kind", "symbol", "exchange_us", "recv_ns", "id",
    "price", "quantity", "ask", "ask_quantity", "line", "flags",
)  # fmt: skip
"""As in model.record; `flags` are names joined by '+', empty when there are none."""

LINE_NAMES: Final = {LINE_A: "A", LINE_B: "B", LINE_REST: "rest", LINE_LOCAL: "local"}
FLAG_NAMES: Final = {
    BUYER_MAKER: "buyer_maker",
    REPAIRED: "repaired",
    STAND_IN: "stand_in",
    LATE: "late",
}
PYARROW_REMEDY: Final = "Parquet needs pyarrow: pip install 'tradeback[parquet]', or use --format csv"

Symbols = Mapping[int, str]
Row = tuple[Any, ...]


def flag_text(flags: int) -> str:
    """The names of the set flags, without the line."""
    return "+".join(name for bit, name in FLAG_NAMES.items() if flags & bit)


_FLAG_TEXTS: Final = tuple(flag_text(flags) for flags in range(256))
_LINE_TEXTS: Final = tuple(LINE_NAMES[flags >> LINE_SHIFT] for flags in range(256))


def export_csv(found: Iterable[Found], symbols: Symbols, stream: IO[str]) -> int:
    """Write a header line and one line per record; floats as the shortest text that reads back equal."""
    stream.write(",".join(COLUMNS) + "\n")
    count = 0
    for piece in found:
        stream.writelines(",".join(map(str, row)) + "\n" for row in _rows(piece, symbols))
        count += len(piece.rows)
    return count


def export_parquet(found: Iterable[Found], symbols: Symbols, path: Path) -> int:
    """Write a Parquet file, one row group per piece. Raises StartupError when pyarrow is missing."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise StartupError(PYARROW_REMEDY) from error
    text, number, real = pa.dictionary(pa.int32(), pa.string()), pa.int64(), pa.float64()
    schema = pa.schema(
        zip(
            COLUMNS,
            (number, pa.uint32(), text, text, *(number,) * 3, *(real,) * 4, text, text),
            strict=True,
        )
    )
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for piece in found:
            columns = list(zip(*_rows(piece, symbols), strict=True))
            arrays = [pa.array(values, kind.type) for values, kind in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(piece.rows)
    return count


def write_whole(path: Path, write: Callable[[Path], int]) -> int:
    """Let `write` fill a file beside `path` and put it there when complete: never half an export."""
    part = path.with_name(f".{path.name}.part")
    try:
        count = write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return count


def _rows(piece: Found, symbols: Symbols) -> Iterable[Row]:
    epoch = piece.segment.epoch
    for sequence, row in zip(piece.sequences.tolist(), piece.rows.tolist(), strict=True):
        *numbers, symbol_id, kind, flags, _ = row
        yield (
            sequence,
            epoch,
            KIND_NAMES.get(kind, str(kind)),
            symbols.get(symbol_id, str(symbol_id)),
            *numbers,
            _LINE_TEXTS[flags],
            _FLAG_TEXTS[flags],
        )
