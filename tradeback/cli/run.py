"""`tradeback run`: the engine, until it is told to stop."""

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tradeback.model.config import Config

PROGRESS_PREFIX = "... "
"""Begins lines about a start that takes its time, and sets them off from errors and the log."""


SWITCH_INTERVAL_S = 0.0002
"""How long a thread in Python (klines of the history, a large answer) may keep the loop from the
interpreter lock. Python's own 5 ms were seen as a p99 of 10 ms while the history loaded."""


@click.command(short_help="Run the engine against the exchange.")
@click.option(
    "--config", "config_path", metavar="FILE", help="YAML file; otherwise CONFIG_PATH, otherwise defaults."
)
@click.option("--host", metavar="ADDRESS", help="Address to serve on (SERVER_HOST).")
@click.option("--port", metavar="PORT", help="Port to serve on, 0 for a free one (SERVER_PORT).")
@click.option("--data-dir", metavar="DIR", help="Where the tape lives (DATA_DIR).")
@click.option(
    "--spin", is_flag=True, default=None, help="Never sleep: half the latency for one whole core (SPIN)."
)
@click.option(
    "--announce", is_flag=True, help='Print {"http": "http://HOST:PORT"} to stdout when the port is open.'
)
def run(config_path: str | None, announce: bool, **options: Any) -> None:
    """Run the engine: exchange lines, tape, feed, HTTP, all on one port.

    Needs no configuration: without any it follows ten symbols of Binance and serves on
    http://127.0.0.1:8080. configs/default.yaml lists every key.

    \b
    Examples:
      tradeback run
      tradeback run --port 9000 --data-dir ~/tape
      EXCHANGE_SYMBOLS=BTCUSDT,ETHUSDT tradeback run
    """
    from tradeback import settings
    from tradeback.ops import limits

    named = {"server.host": "host", "server.port": "port", "data_dir": "data_dir", "spin": "spin"}
    config = settings.load(config_path, os.environ, {key: options[name] for key, name in named.items()})
    limits.raise_open_files(config.feed.clients_max + limits.OPEN_FILES_SPARE)
    _run(config, announce)


def _run(config: "Config", announce: bool) -> None:
    import uvloop

    from tradeback.ops import log

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    log.configure(config.log_level)
    uvloop.run(_serve(config, announce))


async def _serve(config: "Config", announce: bool) -> None:
    """Start, announce, wait for a signal or the engine's own end, stop. The engine's errors pass through."""
    from tradeback.cli.race import race, stop_signals
    from tradeback.engine import Engine
    from tradeback.ops.clock import SystemClock

    engine = Engine(config, SystemClock())
    engine.progress = _progress
    stopping = stop_signals()
    try:
        if await race(engine.start(), stopping.wait()) == 0:
            _greet({"http": engine.url}, announce)
            await race(engine.wait_stopped(), stopping.wait())
    finally:
        await engine.stop()


def _greet(where: Mapping[str, str], announce: bool) -> None:
    if announce:
        import orjson

        sys.stdout.write(orjson.dumps(where).decode() + "\n")
        sys.stdout.flush()
    else:
        click.echo(f"tradeback serves {where['http']} (Ctrl-C stops)", err=True)


def _progress(line: str) -> None:
    click.echo(f"{PROGRESS_PREFIX}{line}", err=True)
