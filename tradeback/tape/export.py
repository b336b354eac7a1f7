"""Records as CSV or Parquet, streamed: the work behind `tradeback tape export`."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tradeback.model.errors import StartupError
from tradeback.model.record import (
    BUYER_MAKER,
    KIND_NAMES,
    LATE,
    LINE_A,
    LINE_B,
    LINE_LOCAL,
    LINE_MASK,
    LINE_REST,
    LINE_SHIFT,
    REPAIRED,
    STAND_IN,
)
from tradeback.tape.query import Found
from tradeback.version import VERSION

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

ROWS_PER_GROUP: Final = 1 << 16
"""Records of one Parquet row group, and the most that are held at a time."""
_TIME: Final = "since 1970-01-01 UTC"
UNITS: Final = {
    "sequence": "position on the tape",
    "epoch": "of the sequence, see docs/tape.md",
    "exchange_us": f"us {_TIME}; match time; 0: none",
    "recv_ns": f"ns {_TIME}; receive time",
    "id": "trade id, aggregate id or update id",
    "price": "quote currency; best bid of a quote",
    "quantity": "base currency; best bid quantity of a quote",
    "ask": "quote currency; aggTrade: first trade id; stand-in: first missing id",
    "ask_quantity": "base currency; aggTrade: last trade id; stand-in: trades it stands for",
    "line": "who brought it: exchange line A or B, rest, local",
    "flags": "names joined by +",
}
"""Unit and meaning of each column, in the metadata (`unit`) of Parquet's fields."""


def decimal_text(value: float) -> str:
    """The shortest decimal that reads back as the same float64, never with an exponent: 1e-05 -> 0.00001.

    The exchange's decimals have up to 15 digits, for which that is the very number that it sent.
    """
    text = repr(value)
    if "e" in text:
        return format(Decimal(text), "f")
    return text.removesuffix(".0")


def export_csv(found: Iterable[Found], symbols: Symbols, stream: IO[str]) -> int:
    """Write a header line and one line per record; see `decimal_text` for the numbers."""
    stream.write(",".join(COLUMNS) + "\n")
    count = 0
    for piece in found:
        stream.writelines(",".join(map(str, row)) + "\n" for row in _rows(piece, symbols))
        count += len(piece.rows)
    return count


def export_parquet(found: Iterable[Found], symbols: Symbols, path: Path) -> int:
    """Write a Parquet file. Raises StartupError when pyarrow is missing."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise StartupError(PYARROW_REMEDY) from error
    text, number, real = pa.dictionary(pa.int32(), pa.string()), pa.int64(), pa.float64()
    types = (number, pa.uint32(), text, text, *(number,) * 3, *(real,) * 4, text, text)
    schema = pa.schema(
        [
            pa.field(name, kind, nullable=False, metadata={"unit": UNITS[name]} if name in UNITS else None)
            for name, kind in zip(COLUMNS, types, strict=True)
        ],
        metadata={"tradeback.version": VERSION},
    )
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for pieces in _groups(found):
            columns = _columns(pieces, symbols)
            arrays = [
                pa.DictionaryArray.from_arrays(pa.array(values.codes, pa.int32()), pa.array(values.names))
                if isinstance(values, _Names)
                else pa.array(values, kind.type)
                for values, kind in zip(columns, schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(arrays[0])
    return count


class _Names(NamedTuple):
    """A column of texts: which of `names` each row has."""

    codes: NDArray[np.int32]
    names: list[str]


def _groups(found: Iterable[Found]) -> Iterator[list[Found]]:
    """Pieces put together to row groups: a sparse choice makes many small pieces."""
    group: list[Found] = []
    rows = 0
    for piece in found:
        if group and rows + len(piece.rows) > ROWS_PER_GROUP:
            yield group
            group, rows = [], 0
        group.append(piece)
        rows += len(piece.rows)
    if group:
        yield group


def _columns(pieces: list[Found], symbols: Symbols) -> list[NDArray[Any] | _Names]:
    """The values of COLUMNS."""
    rows = np.concatenate([piece.rows for piece in pieces])
    epochs = [np.full(len(piece.rows), piece.segment.epoch, np.uint32) for piece in pieces]
    return [
        np.concatenate([piece.sequences for piece in pieces]),
        np.concatenate(epochs),
        _names(rows["kind"], lambda kind: KIND_NAMES.get(kind, str(kind))),
        _names(rows["symbol_id"], lambda symbol_id: symbols.get(symbol_id, str(symbol_id))),
        *(np.ascontiguousarray(rows[name]) for name in COLUMNS[4:11]),
        _names(rows["flags"] >> LINE_SHIFT, LINE_NAMES.__getitem__),
        _names(rows["flags"] & ~np.uint8(LINE_MASK), flag_text),
    ]


def _names(values: NDArray[Any], name_of: Callable[[int], str]) -> _Names:
    found, codes = np.unique(values, return_inverse=True)
    return _Names(codes.astype(np.int32), [name_of(value) for value in found.tolist()])


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
            *numbers[:3],
            *map(decimal_text, numbers[3:]),
            _LINE_TEXTS[flags],
            _FLAG_TEXTS[flags],
        )
