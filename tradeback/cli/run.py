"""`tradeback run`: the engine, until it is told to stop."""

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from tradeback.cli.options import config_option

if TYPE_CHECKING:
    from tradeback.model.config import Config
    from tradeback.supervisor import Family


@click.command(short_help="Run the engine against the exchange.")
@config_option
@click.option("--host", metavar="ADDRESS", help="Address to serve on (SERVER_HOST).")
@click.option("--port", metavar="PORT", help="Port to serve on, 0 for a free one (SERVER_PORT).")
@click.option("--data-dir", type=click.Path(), metavar="DIR", help="Where the tape lives (DATA_DIR).")
@click.option(
    "--spin", is_flag=True, default=None, help="Never sleep: half the latency for one whole core (SPIN)."
)
@click.option(
    "--announce", is_flag=True, help='Print {"http": "http://HOST:PORT"} to stdout when the port is open.'
)
@click.option("--single-process", is_flag=True, help="Everything in one process, for debugging.")
def run(config_path: str | None, announce: bool, single_process: bool, **options: Any) -> int:
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

    named = {"server.host": "host", "server.port": "port", "data_dir": "data_dir", "spin": "spin"}
    config = settings.load(config_path, os.environ, {key: options[name] for key, name in named.items()})
    if single_process or sys.platform != "linux":
        return _run_alone(config, announce)
    return _run_family(config, announce)


def _run_family(config: "Config", announce: bool) -> int:
    """Supervisor and children. The engine is started before this process loads what itself needs."""
    from pathlib import Path

    from tradeback.processes.orphans import wait_for_orphan
    from tradeback.supervisor import Family

    wait_for_orphan(Path(config.data_dir))
    family = Family(config, colour=sys.stderr.isatty())
    family.start(family.engine)

    import asyncio

    from tradeback.ops import log

    log.begin(config, "supervisor")
    return asyncio.run(_supervise(family, announce))


async def _supervise(family: "Family", announce: bool) -> int:
    """Until a signal (0), or until the family cannot go on."""
    import asyncio
    import signal

    from tradeback.cli.race import end_at_once, stop_signals
    from tradeback.ops.log import follow_levels, get_log
    from tradeback.ops.race import race
    from tradeback.supervisor import Supervisor

    def at_once(number: int) -> None:
        family.kill()
        end_at_once(number)

    stopping = stop_signals(at_once)
    follow_levels()
    supervisor = Supervisor(family, get_log("supervisor"), lambda url: _greet({"http": url}, announce))
    asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, supervisor.reap)
    supervisor.reap()
    try:
        await race(stopping.wait(), asyncio.wait({supervisor.ended}))
    finally:
        await supervisor.stop()
    return supervisor.ended.result() if supervisor.ended.done() else 0


def _run_alone(config: "Config", announce: bool) -> int:
    import uvloop

    from tradeback.ops import limits, log

    limits.raise_open_files(config.feed.clients_max + limits.OPEN_FILES_SPARE)
    limits.favour_loop()
    log.begin(config, "engine")
    uvloop.run(_serve(config, announce))
    return 0


async def _serve(config: "Config", announce: bool) -> None:
    """Start, announce, wait for a signal or the engine's own end, stop. The engine's errors pass through."""
    from tradeback.cli.race import end_at_once, show_progress, stop_signals
    from tradeback.engine import Engine
    from tradeback.ops.clock import SystemClock
    from tradeback.ops.log import follow_levels
    from tradeback.ops.race import race

    engine = Engine(config, SystemClock())
    engine.progress = show_progress
    stopping = stop_signals(end_at_once)
    follow_levels()
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
