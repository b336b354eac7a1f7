"""`tradeback demo`: simulator and engine on this machine, with a live table. Nothing to configure."""

import asyncio
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from tradeback.cli.race import PROGRESS_PREFIX
from tradeback.cli.tail import DEFAULT_URL
from tradeback.model.units import parse_duration

if TYPE_CHECKING:
    import aiohttp

    from tradeback.cli.board import Board
    from tradeback.cli.children import Child
    from tradeback.client import Feed

HOST = "127.0.0.1"
PREFERRED_PORT = 8080
"""Taken when it is free, so that `tradeback tail BTCUSDT` finds the engine without being told."""
START_TIMEOUT_S = 60.0
"""The first start ever compiles the kernels."""
REFRESH_TERMINAL_S = 0.5
REFRESH_LINES_S = 1.0
TABLE_ROWS_MAX = 20
TABLE_FRAME_LINES = 7
"""Title, caption, header and rules of the table."""
REQUEST_TIMEOUT_S = 5.0
READY_POLL_S = 0.05
LAST_WORDS_WAIT_S = 3.0
"""A show that fails has most likely lost a child, which says why as soon as its end has been noticed."""


def _duration(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """The option's text in seconds."""
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}") from None


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line asked for."""

    symbols: int
    rate: float
    port: int | None
    data_dir: str | None
    duration_s: float | None


@click.command(short_help="Simulator and engine together, with a live table.")
@click.option(
    "--symbols",
    default=20,
    show_default=True,
    type=click.IntRange(1, 5_000),
    help="Symbols of the simulated market.",
)
@click.option(
    "--rate",
    default=2_000.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Its mean events/s, all symbols together.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help=f"Port of the engine. [default: {PREFERRED_PORT} if free, else any]",
)
@click.option(
    "--data-dir",
    type=click.Path(),
    metavar="DIR",
    help="Keep the tape here. [default: a temporary folder, removed at the end]",
)
@click.option(
    "--for", "duration_s", metavar="DURATION", callback=_duration, help="End after this long, like 30s."
)
def demo(symbols: int, rate: float, port: int | None, data_dir: str | None, duration_s: float | None) -> None:
    """Start a simulated exchange and the engine on free ports, say what to open, and show a live table.

    Without a terminal it prints one line per second instead. Ctrl-C ends both.

    \b
    Examples:
      tradeback demo
      tradeback demo --symbols 200 --rate 20000
      tradeback demo --for 10s | cat
    """
    asyncio.run(_demo(Choice(symbols, rate, port, data_dir, duration_s)))


async def _demo(choice: Choice) -> None:
    """All of it, until Ctrl-C, SIGTERM, the duration, or the end of a child (ChildFailed)."""
    from tradeback.cli.race import stop_signals
    from tradeback.ops.race import race

    await race(_run(choice), stop_signals().wait())


async def _run(choice: Choice) -> None:
    """Children, then the show; the first of them that ends decides."""
    from tradeback.ops.race import race

    async with AsyncExitStack() as running:
        data_dir = choice.data_dir or running.enter_context(
            tempfile.TemporaryDirectory(prefix="tradeback-demo-", ignore_cleanup_errors=True)
        )
        simulator, engine, url = await _start(choice, data_dir, running)
        await race(simulator.failure(), engine.failure(), _show_or_wait(choice, url))


async def _start(choice: Choice, data_dir: str, running: AsyncExitStack) -> "tuple[Child, Child, str]":
    """Simulator and engine as children that `running` stops, and the engine's address."""
    from tradeback.cli.children import Child

    environment = _environment()
    market = ["--symbols", str(choice.symbols), "--rate", str(choice.rate)]
    simulator = await Child.start("the simulator", ["sim", "--port", "0", "--announce", *market], environment)
    running.push_async_callback(simulator.stop)
    exchange = await simulator.announcement(START_TIMEOUT_S)
    environment |= {
        "EXCHANGE_WS_ENDPOINT": exchange["ws"],
        "EXCHANGE_REST_ENDPOINT": exchange["rest"],
        "EXCHANGE_SYMBOLS": "*",
        "SERVER_HOST": HOST,
        "SERVER_PORT": str(_free_port() if choice.port is None else choice.port),
        "DATA_DIR": data_dir,
    }
    engine = await Child.start("the engine", ["run", "--announce"], environment, _pass_on)
    running.push_async_callback(engine.stop)
    return simulator, engine, (await engine.announcement(START_TIMEOUT_S))["http"]


def _environment() -> dict[str, str]:
    """Ours, without any setting of tradeback: the demo is the same for everybody."""
    from tradeback import settings

    ours = {key.variable for key in settings.keys().values()}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ours and name != "CONFIG_PATH" and not name.startswith(settings.WATCHED_PREFIXES)
    }
    return {"LOG_LEVEL": "error"} | kept


def _free_port() -> int:
    """The preferred port, or 0 (any) when somebody has it."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, PREFERRED_PORT))
        except OSError:
            return 0
    return PREFERRED_PORT


def _pass_on(line: str) -> None:
    """Progress of the engine's start is worth showing; its log is not."""
    if line.startswith(PROGRESS_PREFIX):
        click.echo(line, err=True)


async def _show_or_wait(choice: Choice, url: str) -> None:
    """As `_show`; its error comes late enough for a child's last words, which say more, to come first."""
    try:
        await _show(choice, url)
    except Exception:  # whatever it is: it is raised again
        await asyncio.sleep(LAST_WORDS_WAIT_S)
        raise


async def _show(choice: Choice, url: str) -> None:
    """Greet and draw until cancelled, or for as long as was asked for."""
    import aiohttp

    from tradeback.cli.board import Board, greeting
    from tradeback.client import connect
    from tradeback.ops.race import race

    board = Board()
    limit = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    async with aiohttp.ClientSession(url, timeout=limit) as http:
        await _until_ready(http)
        async with connect(url, channels=("trades", "enigma")) as feed:
            traded = asyncio.Event()

            async def draw() -> None:
                await traded.wait()
                click.echo(f"tradeback demo: {choice.symbols} simulated symbols, {choice.rate:,.0f} events/s")
                click.echo(greeting(url, feed.symbols.values(), _command(), DEFAULT_URL))
                await (_draw_table if sys.stdout.isatty() else _draw_lines)(board, http)

            await race(_read(feed, board, traded), draw(), _sleep(choice.duration_s))


async def _until_ready(http: "aiohttp.ClientSession") -> None:
    """Wait for an exchange line to deliver; TradebackError with the engine's words if that takes too long."""
    from tradeback.model.errors import TradebackError

    words = "it did not answer"
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                async with http.get("/api/v1/health/ready") as answer:
                    if answer.status == 200:
                        return
                    words = await answer.text()
                await asyncio.sleep(READY_POLL_S)
    except TimeoutError:
        raise TradebackError(f"the engine is not ready after {START_TIMEOUT_S:.0f} s: {words}") from None


async def _read(feed: "Feed", board: "Board", traded: asyncio.Event) -> None:
    async for event in feed.events():
        board.take(event, feed)
        if board.trades:
            traded.set()


async def _sleep(duration_s: float | None) -> None:
    if duration_s is None:
        await asyncio.Event().wait()
    else:
        await asyncio.sleep(duration_s)


async def _refresh(board: "Board", http: "aiohttp.ClientSession", seconds: float) -> None:
    """Let `seconds` pass, then bring the board up to date."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await asyncio.sleep(seconds)
    async with http.get("/metrics") as answer:
        board.take_metrics(await answer.text())
    board.refresh(loop.time() - begin)


async def _draw_lines(board: "Board", http: "aiohttp.ClientSession") -> None:
    """One line per second, for pipes and logs."""
    from tradeback.cli.board import summary

    while True:
        await _refresh(board, http, REFRESH_LINES_S)
        click.echo(summary(board))


async def _draw_table(board: "Board", http: "aiohttp.ClientSession") -> None:
    """The live table, as high as the terminal allows."""
    from rich.console import Console
    from rich.live import Live

    from tradeback.cli.board import table

    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            rows = max(1, min(TABLE_ROWS_MAX, console.height - TABLE_FRAME_LINES))
            live.update(table(board, rows), refresh=True)
            await _refresh(board, http, REFRESH_TERMINAL_S)


def _command() -> str:
    """How the user starts tradeback: by name if that finds this installation, else by path."""
    import shutil

    here = os.path.join(sys.prefix, "bin", "tradeback")
    found = shutil.which("tradeback")
    if found is not None and os.path.samefile(os.path.dirname(found), os.path.dirname(here)):
        return "tradeback"
    return os.path.relpath(here) if os.path.exists(here) else f"{sys.executable} -m tradeback"
