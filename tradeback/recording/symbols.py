"""What a replay needs to know of the symbols in a recording: beside the files, or learned from the frames."""

from collections.abc import Collection
from pathlib import Path

from tradeback.model.errors import StartupError
from tradeback.recording.recorder import read_symbols
from tradeback.stores.ports import SymbolRecord


def symbols_of(path: Path, pattern: str = "*", wanted: Collection[str] | None = None) -> list[SymbolRecord]:
    """The symbols of a recording, those of `wanted` only if given.

    From `symbols.json` where `tradeback record` has left one; else grids are the finest that is seen in
    the first frames, as the simulator learns them. Raises StartupError when a wanted one is not there.
    """
    records = read_symbols(path if path.is_dir() else path.parent) or _learned(path, pattern)
    if wanted is None:
        return records
    by_name = {record.symbol: record for record in records}
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        raise StartupError(
            f"{path} does not hold {', '.join(unknown)}: correct --symbols, it has {', '.join(by_name)}"
        )
    return [by_name[name] for name in wanted]


def _learned(path: Path, pattern: str) -> list[SymbolRecord]:
    from tradeback.sim.recording import Recording

    try:
        books = Recording(path, files=pattern).books
    except ValueError as error:
        raise StartupError(str(error)) from error
    return [
        SymbolRecord(
            symbol, book.instrument.base, book.instrument.quote, True, book.instrument.tick_size,
            book.instrument.step_size, "0", "0", "0",
        )
        for symbol, book in books.items()
    ]  # fmt: skip
