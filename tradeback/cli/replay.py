"""`tradeback replay`: a recording or a range of a tape through an engine."""

import asyncio
import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tradeback.cli.complete import complete_symbol_list
from tradeback.cli.options import config_option
from tradeback.cli.race import show_progress
from tradeback.cli.run import _greet
from tradeback.cli.tape import time_us
from tradeback.model.errors import StartupError

if TYPE_CHECKING:
    from tradeback.replay import Play, ReplayEngine

REFRESH_S = 0.25


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a range: us since 1970, or a sequence."""

    time_us: int | None = None
    sequence: int | None = None


def _bound(_context: click.Context, _option: click.Parameter, text: str | None) -> Bound:
    if text is None:
        return Bound()
    if text.startswith("seq:"):
        if not text[4:].isdecimal():
            raise click.BadParameter(f"{text!r} is no sequence: write seq:1234")
        return Bound(sequence=int(text[4:]))
    return Bound(time_us=time_us(text))


def _speed(_context: click.Context, _option: click.Parameter, text: str) -> float:
    """0 for as fast as it goes."""
    if text.lower() == "max":
        return 0.0
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = -1.0
    if not 0 < speed < 1e9:
        raise click.BadParameter(f"{text!r}: write max, or a number above 0 like 1 or 10")
    return speed


@click.command(short_help="Play a recording or a tape range through an engine.")
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--speed", default="max", show_default=True, metavar="X|max", callback=_speed,
    help="Recorded seconds per second.",
)  # fmt: skip
@click.option(
    "--from", "begin", callback=_bound, metavar="TIME", help="ISO 8601 (UTC), unix s, or seq:N (tape)."
)
@click.option("--to", "end", callback=_bound, metavar="TIME", help="The same, exclusive.")
@click.option(
    "--symbols", metavar="LIST", shell_complete=complete_symbol_list, help="Only these, like BTCUSDT,ETHUSDT."
)
@click.option("--files", default="*", show_default=True, help="Which files of a recording, as a pattern.")
@click.option(
    "--data-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="A new folder for the tape. [default: a temporary one, removed at the end]",
)  # fmt: skip
@click.option("--host", metavar="ADDRESS", help="Address to serve on (SERVER_HOST).")
@click.option(
    "--port", default="0", show_default=True, metavar="N", help="Port to serve on, 0 for a free one."
)
@click.option(
    "--keep-times/--new-times", default=True, show_default=True,
    help="Recorded receive times on the tape, or those of the replay.",
)  # fmt: skip
@click.option("--stay", is_flag=True, help="Serve on after the end, until Ctrl-C.")
@click.option(
    "--announce", is_flag=True, help='Print {"http": "http://HOST:PORT"} to stdout when the port is open.'
)
@config_option
def replay(source: Path, **options: Any) -> int:
    """Send a recording, or a range of a tape, through an engine: decode, arbitrate, tape, bars, feed, API.

    SOURCE is a folder or file of `tradeback record` (or of others, as `tradeback sim --source` plays them),
    or the data folder of an engine. The engine's own folder is only read; the replay has a tape of its own.
    With the recorded times, every replay of a source makes the same tape.

    \b
    Examples:
      tradeback replay recording
      tradeback replay recording --speed 10 --port 8080 --stay
      tradeback replay data --from 2026-01-31T12:00 --to 2026-01-31T13:00 --data-dir again
      tradeback replay data --from seq:1000000 --symbols BTCUSDT
    """

    import uvloop

    from tradeback import settings
    from tradeback.ops import limits, log

    with ExitStack() as held:
        folder = options["data_dir"]
        if folder is None:
            made = tempfile.TemporaryDirectory(prefix="tradeback-replay-", ignore_cleanup_errors=True)
            folder = Path(held.enter_context(made)) / "data"
        given = {"server.host": options["host"], "server.port": options["port"], "data_dir": str(folder)}
        config = settings.load(options["config_path"], os.environ, given)
        play = make_play(source, options)
        limits.raise_open_files(config.feed.clients_max + limits.OPEN_FILES_SPARE)
        limits.favour_loop()
        log.configure(config.log_level, own=config.log_levels)
        uvloop.run(_serve(config, play, options))
    return 0


def make_play(source: Path, options: dict[str, Any]) -> "Play":
    """What SOURCE is. Raises StartupError when it is neither a recording nor a tape."""
    from tradeback.recording.playback import Span
    from tradeback.recording.reading import list_sources
    from tradeback.recording.symbols import symbols_of
    from tradeback.recording.tape_range import TapeSpan
    from tradeback.replay import PlayRecording, PlayTape

    begin, end = options["begin"], options["end"]
    names = options["symbols"]
    wanted = None if names is None else [part.strip().upper() for part in names.split(",") if part.strip()]
    if wanted == []:
        raise click.BadParameter("name at least one symbol", param_hint="--symbols")
    spans = (_ns(begin.time_us), _ns(end.time_us))
    data_dir = _tape_of(source)
    if data_dir is not None:
        return PlayTape(data_dir, TapeSpan(*spans, begin.sequence, end.sequence), wanted)
    if begin.sequence is not None or end.sequence is not None:
        raise StartupError("a recording has no sequences: give --from and --to as times")
    sources = list_sources(source, options["files"])
    described = symbols_of(source, options["files"], wanted)
    return PlayRecording(sources, described, Span(*spans), wanted is not None)


def _tape_of(source: Path) -> Path | None:
    """The data folder, if SOURCE is one or the tape in it."""
    for folder in (source, source.parent):
        if (folder / "tape").is_dir() and source in (folder, folder / "tape"):
            return folder
    return None


def _ns(moment_us: int | None) -> int | None:
    return None if moment_us is None else moment_us * 1_000


async def _serve(config: Any, play: "Play", options: dict[str, Any]) -> None:
    from tradeback.cli.race import stop_signals
    from tradeback.ops.race import race
    from tradeback.replay import ReplayEngine

    engine = ReplayEngine(config, play, speed=options["speed"], keep_times=options["keep_times"])
    engine.progress = show_progress
    stopping = stop_signals()
    try:
        if await race(engine.start(), stopping.wait()) == 1:
            return
        _greet({"http": engine.url}, options["announce"])
        ended = await race(engine.finished(), engine.wait_stopped(), stopping.wait(), _show(engine))
        if ended == 0:
            click.echo(summary(engine), err=True)
            if options["stay"]:
                await race(engine.wait_stopped(), stopping.wait())
    finally:
        await engine.stop()


def summary(engine: "ReplayEngine") -> str:
    """One line about what was played."""
    played = engine.played
    records = engine.tape.next_sequence - 1 if engine.tape is not None else 0
    rate = played.frames / played.wall_s if played.wall_s else 0.0
    words = (
        f"replayed {played.frames:,} frames as {records:,} records in {played.wall_s:.1f} s, {rate:,.0f}/s"
    )
    if played.refused:
        words += f"; {played.refused:,} records were refused because their ids were known"
    return words


async def _show(engine: "ReplayEngine") -> None:
    """Recorded time, count and rate on a terminal, nothing elsewhere. Until cancelled."""
    import sys

    if not sys.stderr.isatty():
        await asyncio.Event().wait()
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    loop = asyncio.get_running_loop()
    before, since = 0, loop.time()
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        while True:
            await asyncio.sleep(REFRESH_S)
            frames, now = engine.played.frames, loop.time()
            moment = datetime.fromtimestamp(engine.played.now_ns / 1e9, UTC)
            rate = (frames - before) / (now - since)
            live.update(
                Text(f"{moment:%Y-%m-%d %H:%M:%S} UTC  {frames:,} frames  {rate:,.0f}/s"), refresh=True
            )
            before, since = frames, now
