"""`tradeback edge`: serve feed and API from a copy of another engine's tape."""

import os
from typing import TYPE_CHECKING, Any

import click

from tradeback.cli.options import config_option

if TYPE_CHECKING:
    from tradeback.model.config import Config


@click.command(short_help="Serve another engine's tape, read from NATS.")
@config_option
@click.option("--hub", metavar="NODE", help="Name of the engine to follow: its NATS_NODE (NATS_NODE).")
@click.option("--nats", metavar="URL", help="The server to which that publishes (NATS_URL).")
@click.option("--host", metavar="ADDRESS", help="Address to serve on (SERVER_HOST).")
@click.option("--port", metavar="PORT", help="Port to serve on, 0 for a free one (SERVER_PORT).")
@click.option(
    "--data-dir", type=click.Path(), metavar="DIR", help="Where the copy of the tape lives (DATA_DIR)."
)
@click.option(
    "--announce", is_flag=True, help='Print {"http": "http://HOST:PORT"} to stdout when the port is open.'
)
def edge(config_path: str | None, announce: bool, **options: Any) -> int:
    """Run an edge node: an engine that gets its records from another engine instead of the exchange.

    It copies the hub's tape out of the JetStream stream, with the hub's epochs and sequences, and serves feed
    and HTTP from its own copy. Clients may resume on any edge of the same hub.

    \b
    Examples:
      tradeback edge --nats nats://localhost:4222
      tradeback edge --hub tokyo --nats nats://user:pass@bus:4222 --port 9000 --data-dir ~/edge
    """
    from tradeback import settings
    from tradeback.edge.engine import check

    named = {
        "server.host": "host", "server.port": "port", "data_dir": "data_dir",
        "nats.node": "hub", "nats.url": "nats",
    }  # fmt: skip
    config = settings.load(config_path, os.environ, {key: options[name] for key, name in named.items()})
    check(config)

    import uvloop

    from tradeback.ops import limits, log

    limits.raise_open_files(config.feed.clients_max + limits.OPEN_FILES_SPARE)
    limits.favour_loop()
    log.begin(config, "engine")
    uvloop.run(_serve(config, announce))
    return 0


async def _serve(config: "Config", announce: bool) -> None:
    from tradeback.cli.race import end_at_once, show_progress, stop_signals
    from tradeback.edge.serve import serve
    from tradeback.ops import log

    log.follow_levels()

    await serve(config, stop_signals(end_at_once), lambda url: _greet(url, announce), show_progress)


def _greet(url: str, announce: bool) -> None:
    if announce:
        click.echo(f'{{"http": "{url}"}}')
    else:
        click.echo(f"tradeback serves {url} (Ctrl-C stops)", err=True)
