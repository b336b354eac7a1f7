"""`tradeback sim`: a Binance double on this machine."""

import click

EXAMPLES = """
\b
Examples:
  tradeback sim                                   a market of 50 symbols, 1,000 events/s
  tradeback sim --symbols 5 --rate 50000 --seed 7 a fast one, the same every time
  tradeback sim --source recordings/spot_ws --speed 10 --wait 6
  tradeback sim --port 0 --announce               free ports, told as one JSON line
  tradeback sim --faults seed:7                   with faults of every kind, the same every time
  tradeback sim --faults storm.yaml --clock-rate 1000   scripted ones; a connection's day takes 86 s
"""


@click.command(name="sim", epilog=EXAMPLES)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=9443,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="Port of the streams; 0 takes a free one.",
)
@click.option(
    "--rest-port",
    default=None,
    type=click.IntRange(0, 65_535),
    help="Port of REST. [default: the port after --port; free if --port is 0]",
)
@click.option(
    "--source",
    type=click.Path(),
    default=None,
    help="Folder (or file) with recorded frames; without it the market is synthetic.",
)
@click.option(
    "--files", default="*", show_default=True, help="Which files of the folder, as a pattern: '*2024*'."
)
@click.option(
    "--symbols",
    default=50,
    show_default=True,
    type=click.IntRange(1, 5_000),
    help="Symbols of the synthetic market.",
)
@click.option(
    "--rate",
    default=1_000.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Mean events/s of the whole synthetic market.",
)
@click.option(
    "--seed",
    default=1,
    show_default=True,
    type=click.IntRange(0),
    help="The same seed makes the same market.",
)
@click.option(
    "--bursts",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 1.5),
    help="Clustering of the synthetic market: 1 as recorded, 0 an even stream.",
)
@click.option("--unicode-symbols", is_flag=True, help="Also list two symbols with non-ASCII names.")
@click.option(
    "--speed",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Market seconds per second; 0 plays as fast as the readers take it.",
)
@click.option(
    "--wait",
    default=1,
    show_default=True,
    type=click.IntRange(0),
    help="Streams that must be subscribed before the market begins; 0 does not wait.",
)
@click.option(
    "--faults",
    default=None,
    metavar="FILE|seed:N[:LENGTH]",
    help="What goes wrong: a script (YAML or JSON), or one made from a number.",
)
@click.option(
    "--clock-rate",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Seconds of pings, connection ages and limits per second; the market keeps its pace.",
)
@click.option("--once", is_flag=True, help="End when the recording has been played.")
@click.option(
    "--announce", is_flag=True, help='Print one JSON line {"ws": ..., "rest": ...} when it listens.'
)
def sim(
    host: str, port: int, rest_port: int | None, source: str | None, files: str, symbols: int, rate: float,
    seed: int, bursts: float, unicode_symbols: bool, speed: float, wait: int, faults: str | None,
    clock_rate: float, once: bool, announce: bool,
) -> None:  # fmt: skip
    """Serve a double of the exchange: streams and REST, from recordings or a seeded market."""
    import uvloop

    from tradeback.sim.config import SimConfig
    from tradeback.sim.run import Choice, serve

    if rest_port is None:
        rest_port = 0 if port == 0 else min(port + 1, 65_535)
    config = SimConfig(
        host=host,
        port=port,
        rest_port=rest_port,
        speed=speed,
        start_after_streams=wait,
        life_rate=clock_rate,
    )
    choice = Choice(source, files, symbols, rate, seed, bursts, unicode_symbols, announce, once, faults)
    try:
        uvloop.run(serve(choice, config))
    except (OSError, ValueError) as error:
        click.echo(f"tradeback sim: {_explain(error, host, port, rest_port)}", err=True)
        raise SystemExit(2) from None


def _explain(error: OSError | ValueError, host: str, port: int, rest_port: int) -> str:
    import errno

    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return (
            f"{host}:{port} or :{rest_port} is in use; choose others with --port and --rest-port, or --port 0"
        )
    if number == errno.EACCES:
        return f"{host}:{port} may not be opened by this user; choose a port above 1023 with --port"
    if number == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine; choose another with --host"
    return str(error)
