"""`tradeback tape`: look at, verify and export the tape under DATA_DIR. Never writes to it."""

import json
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tradeback.cli.complete import complete_kinds, complete_symbols
from tradeback.model.errors import StartupError, TapeError
from tradeback.model.symbols import SYMBOL_IDS_MAX

if TYPE_CHECKING:
    from tradeback.tape.audit import Progress
    from tradeback.tape.reader import TapeReader

TAPE_FOLDER = "tape"
REGISTRY_FILE = "registry.sqlite"

_data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    envvar="DATA_DIR",
    default="data",
    show_default=True,
    help="Folder of the engine's data; also DATA_DIR.",
)


@click.group()
def tape() -> None:
    """Look at, verify and export a tape, also while the engine writes it.

    \b
    Examples:
      tradeback tape info
      tradeback tape verify --data-dir ~/tape
    """


@tape.command()
@_data_dir
@click.option("--json", "as_json", is_flag=True, help="Plain JSON instead of tables.")
def info(data_dir: Path, as_json: bool) -> None:
    """Segments, epochs, sequences, times, records per kind, size.

    \b
    Example:
      tradeback tape info --json
    """
    from tradeback.tape.audit import describe

    reader = _open(data_dir)
    with _progress(reader, "reading") as progress:
        found = describe(reader, progress)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _print_info(found)


@tape.command()
@_data_dir
def verify(data_dir: Path) -> None:
    """Check every record's checksum, the continuity of sequences, and the indexes.

    Exit code 1 when something is wrong, with a line for each file concerned.

    \b
    Example:
      tradeback tape verify --data-dir ~/tape
    """
    from tradeback.tape.audit import problems

    reader = _open(data_dir)
    first, after = reader.oldest_sequence, reader.next_sequence
    with _progress(reader, "verifying") as progress:
        found = list(problems(reader, progress))
    for line in found:
        click.echo(line, err=True)
    if found:
        raise click.exceptions.Exit(1)
    if first == after:
        click.echo("good: the tape is empty")
    else:
        click.echo(f"good: records {first} to {after - 1} in {len(reader.segments())} segments")


@tape.command()
@_data_dir
@click.option(
    "--format", "kind_of_file", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True
)
@click.option(
    "--symbol", "names", multiple=True, shell_complete=complete_symbols,
    help="Name or wire id; may be repeated. Default: all.",
)  # fmt: skip
@click.option("--from", "from_us", callback=lambda *a: time_us(a[2]), help="ISO 8601 (UTC) or unix seconds.")
@click.option("--to", "to_us", callback=lambda *a: time_us(a[2]), help="The same, exclusive.")
@click.option(
    "--kind", "kinds", multiple=True, shell_complete=complete_kinds,
    help="trade, quote, aggTrade, ...; may be repeated. Default: all.",
)  # fmt: skip
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File; - is stdout (csv).",
)
def export(
    data_dir: Path,
    kind_of_file: str,
    names: tuple[str, ...],
    from_us: int | None,
    to_us: int | None,
    kinds: tuple[str, ...],
    output: Path,
) -> None:
    """Write records to a CSV or Parquet file, in tape order.

    Trades are selected by the exchange's time, quotes by the time of receipt. Memory is bounded whatever
    the size of the tape. Parquet needs pyarrow: pip install 'tradeback[parquet]'.

    \b
    Examples:
      tradeback tape export --symbol BTCUSDT --kind trade -o trades.csv
      tradeback tape export --from 2026-01-31T12:00 --to 2026-01-31T13:00 -o - | head
      tradeback tape export --format parquet --kind trade --kind quote -o all.parquet
    """
    from tradeback.tape.export import export_csv, export_parquet, write_whole
    from tradeback.tape.query import Query

    reader = _open(data_dir)
    symbols = _symbol_names(data_dir)
    kind_ids = _kind_ids(kinds)
    symbol_ids = [_symbol_id(name, symbols) for name in names]
    single = symbol_ids[0] if len(symbol_ids) == 1 else None
    query = Query(single, kind_ids, from_us, to_us)
    found = reader.find(query)
    if len(symbol_ids) > 1:
        from tradeback.tape.query import only_symbols

        found = only_symbols(found, symbol_ids)
    if str(output) == "-":
        if kind_of_file != "csv":
            raise click.UsageError("Parquet cannot be streamed: give a file with -o")
        export_csv(found, symbols, sys.stdout)
        return

    def write(path: Path) -> int:
        if kind_of_file == "parquet":
            return export_parquet(found, symbols, path)
        with path.open("w", encoding="utf-8", newline="") as stream:
            return export_csv(found, symbols, stream)

    try:
        count = write_whole(output, write)
    except OSError as error:
        raise StartupError(
            f"{output} cannot be written ({error.strerror}): give another file with -o"
        ) from error
    click.echo(f"{count} records written to {output}", err=True)


def _open(data_dir: Path) -> "TapeReader":
    from tradeback.tape.reader import TapeReader

    try:
        return TapeReader(data_dir / TAPE_FOLDER)
    except TapeError as error:
        raise StartupError(
            f"there is no tape in {data_dir / TAPE_FOLDER}: start `tradeback run` or `tradeback demo` first, "
            "or name the engine's folder with --data-dir"
        ) from error


def _symbol_names(data_dir: Path) -> dict[int, str]:
    """Wire id -> symbol from the engine's registry; empty when there is none."""
    path = data_dir / REGISTRY_FILE
    if not path.exists():
        return {}
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return dict(connection.execute("SELECT id, symbol FROM symbolsmap"))
    except sqlite3.Error:
        return {}  # not a registry of ours, or locked: ids will do


def _symbol_id(name: str, symbols: dict[int, str]) -> int:
    for symbol_id, symbol in symbols.items():
        if symbol.upper() == name.upper():
            return symbol_id
    if re.fullmatch(r"[0-9]{1,5}", name) and 1 <= int(name) <= SYMBOL_IDS_MAX:
        return int(name)
    known = (
        f"known are {', '.join(sorted(symbols.values())[:20])}"
        if symbols
        else "no registry here: give its wire id"
    )
    raise click.BadParameter(f"unknown symbol {name!r}: {known}", param_hint="--symbol")


def _kind_ids(names: tuple[str, ...]) -> list[int] | None:
    from tradeback.model.record import KIND_NAMES

    ids = {name.lower(): kind for kind, name in KIND_NAMES.items()}
    for name in names:
        if name.lower() not in ids:
            raise click.BadParameter(
                f"unknown kind {name!r}: use one of {', '.join(KIND_NAMES.values())}", param_hint="--kind"
            )
    return [ids[name.lower()] for name in names] or None


def time_us(text: str | None) -> int | None:
    """Us since 1970 from unix seconds or ISO 8601; a time without zone is UTC."""
    if text is None:
        return None
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        whole, _, fraction = text.partition(".")
        return int(whole) * 1_000_000 + int(fraction[:6].ljust(6, "0"))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is neither ISO 8601 nor unix seconds") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


@contextmanager
def _progress(reader: "TapeReader", verb: str) -> Iterator["Progress"]:
    """A progress bar on a terminal, silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda segment, rows: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    total = reader.next_sequence - reader.oldest_sequence
    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(verb, total=total)
        yield lambda segment, rows: bar.advance(task, rows)


def _print_info(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    held = found["next_sequence"] - found["oldest_sequence"]
    summary = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in (
        ("folder", found["folder"]),
        (
            "records",
            f"{held:,} ({found['oldest_sequence']} to {found['next_sequence'] - 1})" if held else "none",
        ),
        (
            "received",
            f"{moment_text(found['recv_ns_min'])} to {moment_text(found['recv_ns_max'])}" if held else "-",
        ),
        ("kinds", ", ".join(f"{kind} {count:,}" for kind, count in found["records"].items()) or "-"),
        ("epochs", ", ".join(f"{each['epoch']} from {each['first_sequence']}" for each in found["epochs"])),
        ("size", f"{found['bytes']:,} bytes in {len(found['segments'])} segments"),
        ("last end", "clean" if found["ended_cleanly"] else "not clean, or the engine is running"),
        ("set aside", ", ".join(found["cut_files"]) or "nothing"),
    ):
        summary.add_row(name, value)
    console.print(summary)
    table = Table("file", "first", "records", "bytes", "index", "received from", "to")
    for each in found["segments"]:
        table.add_row(
            each["file"], str(each["first_sequence"]), f"{each['records']:,}", f"{each['bytes']:,}",
            "yes" if each["indexed"] else "-",
            moment_text(each["recv_ns_min"]), moment_text(each["recv_ns_max"]),
        )  # fmt: skip
    console.print(table)


def moment_text(recv_ns: int | None) -> str:
    """A receive time to the second, UTC; `-` for none."""
    if recv_ns is None:
        return "-"
    return datetime.fromtimestamp(recv_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
