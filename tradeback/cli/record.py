"""`tradeback record`: raw frames with their receive times to disk, and a look at what was recorded."""

import asyncio
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tradeback.cli.complete import complete_symbol_list
from tradeback.cli.options import config_option
from tradeback.model.errors import StartupError, TradebackError
from tradeback.model.units import parse_duration, parse_size

if TYPE_CHECKING:
    from tradeback.model.config import Config
    from tradeback.recording.recorder import Order, Recorder
    from tradeback.recording.survey import Survey
    from tradeback.recording.writer import Rotation

REFRESH_TERMINAL_S = 0.25
REFRESH_LINES_S = 5.0
HOLES_SHOWN = 5


def _duration(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}") from None


def _rotation(_context: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> "Rotation":
    from tradeback.recording.writer import Rotation

    size, age = Rotation().size_bytes, Rotation().age_s
    for text in texts:
        try:
            if re.search(r"[bB]$|^[0-9]+$", text.strip()):
                size = parse_size(text)
            else:
                age = parse_duration(text)
        except ValueError:
            raise click.BadParameter(
                f"{text!r} is neither a size like 64MiB nor a duration like 1h"
            ) from None
    if size <= 0 or age <= 0:
        raise click.BadParameter("give a size or a duration above 0")
    return Rotation(size, age)


def _streams(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[str, ...]:
    from tradeback.exchange.streams import STREAMS

    if text is None:
        return STREAMS
    names = {name.lower(): name for name in STREAMS}
    wanted = [part.strip().lower() for part in text.split(",") if part.strip()]
    unknown = [part for part in wanted if part not in names]
    if unknown or not wanted:
        raise click.BadParameter(f"{text!r}: write some of {','.join(STREAMS)}")
    return tuple(dict.fromkeys(names[part] for part in wanted))


@click.command(short_help="Record raw frames of the exchange, or check a recording.")
@click.option(
    "--symbols", metavar="LIST", shell_complete=complete_symbol_list,
    help="Like BTCUSDT,ETHUSDT or '*' (EXCHANGE_SYMBOLS).",
)  # fmt: skip
@click.option(
    "--streams", metavar="LIST", callback=_streams, help="Some of trade,bookTicker,aggTrade. [default: all]"
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("recording"),
    show_default=True, metavar="FOLDER", help="Where the files go; what it holds is kept.",
)  # fmt: skip
@click.option(
    "--rotate", multiple=True, metavar="SIZE|DURATION", callback=_rotation,
    help="Begin a new file at this size or age; may be given twice. [default: 64MiB and 1h]",
)  # fmt: skip
@click.option("--for", "duration_s", metavar="DURATION", callback=_duration, help="End after this long.")
@click.option("--lines", type=click.IntRange(1, 2), help="Connections per stream (EXCHANGE_LINES).")
@config_option
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Do not record: tell what FOLDER holds.",
)
@click.option("--json", "as_json", is_flag=True, help="With --check: JSON instead of tables.")
def record(
    symbols: str | None, streams: tuple[str, ...], output: Path, rotate: "Rotation", duration_s: float | None,
    lines: int | None, config_path: str | None, check: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Write every frame of the exchange with its receive time, as it came, before anything is decoded.

    Where the exchange is and how it is reached is taken from the configuration, as by `tradeback run`.
    Ctrl-C ends it. `tradeback replay` and `tradeback sim --source` play what it has written.

    With --check: counts, times, and what is missing; exit code 1 when frames are missing.

    \b
    Examples:
      tradeback record
      tradeback record --symbols BTCUSDT,ETHUSDT --streams trade,aggTrade -o btc --for 1h
      tradeback record --lines 2 --rotate 16MiB --rotate 10m
      tradeback record --check recording
    """
    if check is not None:
        return _check(check, as_json)
    if as_json:
        raise click.UsageError("--json goes with --check")
    from tradeback import settings
    from tradeback.recording.recorder import Order

    options = {"exchange.symbols": symbols, "exchange.lines": lines}
    config = settings.load(config_path, os.environ, options)
    return _record(config, Order(output, streams, rotate), duration_s)


def _record(config: "Config", order: "Order", duration_s: float | None) -> int:
    import uvloop

    from tradeback.ops import log

    log.configure(config.log_level, own=config.log_levels)
    return uvloop.run(_run(config, order, duration_s))


async def _run(config: "Config", order: "Order", duration_s: float | None) -> int:
    from tradeback.cli.race import stop_signals
    from tradeback.ops.clock import SystemClock
    from tradeback.ops.log import get_log
    from tradeback.ops.race import race
    from tradeback.recording.recorder import Recorder

    recorder = Recorder(order, config.exchange, SystemClock(), get_log("record"))
    stopping = stop_signals()
    try:
        if await race(recorder.start(), stopping.wait()) == 0:
            click.echo(f"tradeback records into {order.folder} (Ctrl-C stops)", err=True)
            await race(recorder.wait_stopped(), stopping.wait(), _show(recorder), _sleep(duration_s))
    finally:
        await recorder.stop()
    click.echo(f"{summary(recorder)}, complete", err=True)
    counts = recorder.counts
    if counts.dropped or recorder.writer.incomplete:
        raise TradebackError(
            f"{counts.dropped} frames were not written, {recorder.writer.incomplete} files are not complete: "
            f"{recorder.writer.trouble or 'the disk or the processor was too slow'}; "
            f"`tradeback record --check {order.folder}` shows where"
        )
    return 0


async def _sleep(duration_s: float | None) -> None:
    if duration_s is None:
        await asyncio.Event().wait()
    else:
        await asyncio.sleep(duration_s)


def summary(recorder: "Recorder", rate: float | None = None) -> str:
    """One line: frames, rate, bytes, files, and what is wrong if anything is."""
    counts = recorder.counts
    words = [f"{counts.frames:,} frames"]
    if rate is not None:
        words.append(f"{rate:,.0f}/s")
    words.append(f"{counts.frame_bytes / 1e6:,.1f} MB as {counts.disk_bytes / 1e6:,.1f} MB on disk")
    words.append(f"{counts.files} files")
    up = sum(line.is_up for line in recorder.lines)
    if rate is not None:
        words.append(f"{up}/{len(recorder.lines)} lines up")
    if counts.dropped:
        words.append(f"{counts.dropped:,} DROPPED")
    if recorder.writer.trouble:
        words.append(f"disk: {recorder.writer.trouble}")
    return ", ".join(words)


async def _show(recorder: "Recorder") -> None:
    """A line that changes on a terminal, a line now and then elsewhere. Until cancelled."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
            await _refresh(recorder, REFRESH_TERMINAL_S, lambda line: live.update(Text(line), refresh=True))
    else:
        await _refresh(recorder, REFRESH_LINES_S, lambda line: click.echo(line, err=True))


async def _refresh(recorder: "Recorder", every_s: float, show: Callable[[str], object]) -> None:
    loop = asyncio.get_running_loop()
    before, since = recorder.counts.frames, loop.time()
    while True:
        await asyncio.sleep(every_s)
        frames, now = recorder.counts.frames, loop.time()
        show(summary(recorder, (frames - before) / (now - since)))
        before, since = frames, now


# --check


def _check(folder: Path, as_json: bool) -> int:
    import json

    from tradeback.recording.reading import list_sources
    from tradeback.recording.survey import survey

    try:
        found = survey(list_sources(folder))
    except OSError as error:
        raise StartupError(f"{error.filename or folder} cannot be read: {error.strerror}") from error
    told = found.as_json()
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        _print(found, told)
    return 1 if told["dropped"] or found.missing else 0


def _print(found: "Survey", told: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from tradeback.cli.tape import moment_text

    console = Console()
    table = Table(
        "connection", "files", "frames", "MB", "on disk", "seconds", "connects", "away s", "dropped", box=None
    )
    for one in found.connections:
        away_s = sum((to - since) / 1e9 for since, to, _ in one.away if to is not None)
        lasted_s = (one.last_ns - one.first_ns) / 1e9 if one.last_ns and one.first_ns else 0.0
        table.add_row(
            one.name, str(one.files), f"{one.frames:,}", f"{one.frame_bytes / 1e6:,.1f}",
            f"{one.disk_bytes / 1e6:,.1f}", f"{lasted_s:,.1f}", str(one.connects), f"{away_s:,.1f}",
            f"{one.dropped:,}",
        )  # fmt: skip
    console.print(table)
    times = [time for one in found.connections for time in (one.first_ns, one.last_ns) if time is not None]
    if times:
        click.echo(f"received from {moment_text(min(times))} to {moment_text(max(times))} UTC")
    missing = found.missing
    for name, holes in missing.items():
        count = sum(last - first + 1 for first, last in holes)
        spans = ", ".join(f"{first}..{last}" for first, last in holes[:HOLES_SHOWN])
        more = f" and {len(holes) - HOLES_SHOWN} more" if len(holes) > HOLES_SHOWN else ""
        click.echo(f"{name}: {count:,} ids are on no line: {spans}{more}")
    if not missing and not told["dropped"]:
        streams = len(told["streams"])
        click.echo(f"good: {told['frames']:,} frames; no id is missing in {streams} streams that have them")
