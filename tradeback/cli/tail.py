"""`tradeback tail`: a subscriber in the terminal."""

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tradeback.client import Batch, BatchV1, Control, Feed, Gap

DEFAULT_URL = "http://127.0.0.1:8080"


@click.command(short_help="Follow symbols of a running engine in the terminal.")
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
@click.option("--url", default=DEFAULT_URL, show_default=True, help="Address of the engine.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--count", type=click.IntRange(min=1), help="Stop after this many lines.")
def tail(symbols: tuple[str, ...], url: str, as_json: bool, count: int | None) -> int:
    """Print every trade of the symbols as it arrives; the first line of each is its last known price.

    A line is: local time of arrival, symbol, price, quantity since the line before. Give '*' for all
    symbols. A lost connection is mended by itself, without loss where the engine's tape reaches back
    that far. Gaps in what the exchange sent, and their repair, are noted on stderr.

    \b
    Examples:
      tradeback tail BTCUSDT
      tradeback tail BTCUSDT ETHUSDT --url http://10.0.0.5:8080
      tradeback tail '*' --json | head -100
    """
    import asyncio

    return asyncio.run(_follow(symbols, url, as_json, count))


async def _follow(symbols: tuple[str, ...], url: str, as_json: bool, count: int | None) -> int:
    """Print until `count` lines are out. Exit code 2 when no symbol is known to the engine."""
    from tradeback.client import Batch, BatchV1, Control, FeedError, Lost, connect
    from tradeback.model.errors import StartupError

    left = count if count is not None else sys.maxsize
    try:
        async with connect(url, symbols, channels=("trades", "gaps"), on_gap=_note_gap) as feed:
            async for event in feed.events():
                if isinstance(event, Control):
                    _note(event, feed)
                elif isinstance(event, Lost):
                    click.echo(f"tradeback: trades are missing here: {event.reason}", err=True)
                elif isinstance(event, Batch | BatchV1) and len(event.entries):
                    left -= _print(event, feed, as_json, left)
                    if left == 0:
                        return 0
    except FeedError as error:
        raise StartupError(
            f"{error}; start one with `tradeback run` or `tradeback demo`, or name another with --url"
        ) from None
    return 0


def _note(event: "Control", feed: "Feed") -> None:
    """Text messages that matter to the reader go to stderr. An error that leaves nothing to show ends."""
    from tradeback.model.errors import StartupError

    if event.type == "error":
        text = str(event.message.get("message", event.message))
        if not feed.symbols:
            raise StartupError(text)
        click.echo(f"tradeback: {text}", err=True)
    elif event.type == "disconnected":
        click.echo(f"tradeback: {event.message['reason']}; connecting again", err=True)


def _note_gap(gap: "Gap") -> None:
    """A gap's new state goes to stderr."""
    span = f"ids {gap.first_id} to {gap.last_id}"
    click.echo(f"tradeback: gap in {gap.symbol}, {span}: {gap.state}, {gap.missing} missing", err=True)


def _print(batch: "Batch | BatchV1", feed: "Feed", as_json: bool, lines_max: int) -> int:
    """Print the entries of one batch in one write, `lines_max` at most; returns how many."""
    lines = []
    for symbol_id, price, volume in batch.entries[:lines_max].tolist():
        symbol = feed.symbol(symbol_id)
        if as_json:
            lines.append(_json_line(symbol.symbol, price, volume, batch.recv_ns))
        else:
            moment = datetime.fromtimestamp(batch.recv_ns / 1e9).strftime("%H:%M:%S.%f")
            lines.append(
                f"{moment}  {symbol.symbol:<12} {price:>16.{symbol.price_precision}f}"
                f"  {volume:>18.{symbol.quantity_precision}f}"
            )
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    return len(lines)


def _json_line(symbol: str, price: float, volume: float, recv_ns: int) -> str:
    import orjson

    fields: dict[str, Any] = {"symbol": symbol, "price": price, "volume": volume, "recv_ns": recv_ns}
    return orjson.dumps(fields).decode()
