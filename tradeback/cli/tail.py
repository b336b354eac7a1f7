"""`tradeback tail`: a subscriber in the terminal."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from tradeback.cli import login as logins
from tradeback.cli.complete import complete_symbols
from tradeback.cli.login import Login, login_options
from tradeback.model.errors import StartupError, TradebackError

if TYPE_CHECKING:
    from tradeback.cli.tail_facts import Facts
    from tradeback.client import Batch, BatchV1, Control, Event, Feed, Gap

DEFAULT_URL = "http://127.0.0.1:8080"
QUOTED_MAX = 5
"""Of at most so many symbols bid and ask are shown, which change far more often than prices."""
POLICY = "closed by the engine: 1008"
"""How the end of a connection reads whose session has ended."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line asked for."""

    symbols: tuple[str, ...]
    url: str
    as_json: bool
    facts: bool
    live: bool
    board: bool
    count: int | None

    @property
    def channels(self) -> tuple[str, ...]:
        """Of the feed: no more than what is shown."""
        if not (self.live or self.facts):
            return ("trades", "gaps")
        quoted = len(self.symbols) <= QUOTED_MAX and "*" not in self.symbols
        return ("trades", "gaps", "enigma", *(("quotes",) if quoted else ()))


@click.command(short_help="Follow symbols of a running engine in the terminal.")
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...", shell_complete=complete_symbols)
@click.option("--url", default=DEFAULT_URL, show_default=True, help="Address of the engine.")
@click.option("--board", is_flag=True, help="The facts alone, on the whole terminal, without the lines.")
@click.option("--plain", is_flag=True, help="Lines alone, as without a terminal.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--facts", is_flag=True, help="With --json: also one object a second with the facts.")
@click.option("--count", type=click.IntRange(min=1), help="Stop after this many lines.")
@login_options
def tail(
    symbols: tuple[str, ...], url: str, board: bool, plain: bool, as_json: bool, facts: bool,
    count: int | None, login_name: str | None, password_stdin: bool, token_file: str | None,
) -> int:  # fmt: skip
    """Print every trade of the symbols as it arrives; the first line of each is its last known price.

    A line is: local time of arrival, symbol, price, quantity since the line before. Give '*' for all
    symbols. A lost connection is mended by itself, without loss where the engine's tape reaches back
    that far. Gaps in what the exchange sent, and their repair, are noted on stderr.

    On a terminal the facts of the page stand below the lines: rate, the three latencies, lines A and B,
    gaps, and for each symbol how far it is complete, Enigma and the Fibonacci levels.

    Where the engine wants a session, give a token in TRADEBACK_TOKEN or --token-file, or log in.

    \b
    Examples:
      tradeback tail BTCUSDT
      tradeback tail BTCUSDT ETHUSDT --url http://10.0.0.5:8080
      tradeback tail '*' --board
      tradeback tail BTCUSDT --login alice
      tradeback tail '*' --json | head -100
      tradeback tail BTCUSDT --json --facts > btc.jsonl
    """
    if facts and not as_json:
        raise click.UsageError("--facts goes with --json; on a terminal the facts are shown anyway")
    if board and (plain or as_json or not _is_terminal()):
        raise click.UsageError("--board needs a terminal, and neither --plain nor --json")
    live = not (plain or as_json) and _is_terminal()
    login = logins.read(login_name, password_stdin, token_file)
    return asyncio.run(_run(Choice(symbols, url, as_json, facts, live, board, count), login))


def _is_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


class Lines:
    """Trades as lines of text, until enough of them are made; everything else of the feed is said."""

    def __init__(self, choice: Choice, say: Say) -> None:
        self._choice, self._say = choice, say
        self.left = choice.count if choice.count is not None else sys.maxsize
        """How many more lines are wanted."""

    def of(self, event: "Event", feed: "Feed") -> list[str]:
        """The lines of one event. Raises TradebackError when there is nothing more to come."""
        from tradeback.client import Batch, BatchV1, Control, Lost

        if isinstance(event, Control):
            _note(event, feed, self._say)
        elif isinstance(event, Lost):
            self._say(f"tradeback: trades are missing here: {event.reason}")
        elif isinstance(event, Batch | BatchV1) and len(event.entries):
            count = min(self.left, len(event.entries))
            self.left -= count
            return [] if self._choice.board else _lines(event, feed, self._choice.as_json, count)
        return []


async def _run(choice: Choice, login: Login) -> int:
    """Print until `count` lines are out. Exit code 2 when no symbol is known to the engine."""
    from tradeback.cli.race import stop_signals
    from tradeback.ops.race import race

    if choice.live or login.name:
        # What is held, a session and the screen, is to be given back; also when the window is closed.
        stopping = stop_signals()
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, stopping.set)
        await race(_with_session(choice, login), stopping.wait())
    else:
        await _with_session(choice, login)
    return 0


async def _with_session(choice: Choice, login: Login) -> None:
    async with logins.session(choice.url, login) as token:
        await _follow(choice, token)


async def _follow(choice: Choice, token: str) -> None:
    from tradeback.client import FeedError, FeedRefused, connect

    say: Say = _to_stderr
    screen = None
    facts = _facts(choice.url)
    if choice.live:
        from tradeback.cli.tail_live import Live

        screen = Live(facts, board=choice.board)
        say = screen.say
    lines = Lines(choice, say)
    try:
        async with connect(
            choice.url, choice.symbols, channels=choice.channels, token=token or None,
            on_gap=lambda gap: _note_gap(gap, say),
        ) as feed:  # fmt: skip
            _hush()
            if screen is not None:
                from tradeback.cli.tail_poll import polling

                async with polling(choice.url, token, facts) as poll:
                    await screen.run(feed, poll, lines)
            elif choice.facts:
                await _print_both(feed, lines, facts, choice.url, token)
            else:
                await _print_all(feed, lines, None)
    except FeedRefused as error:
        if error.status != 401:
            raise StartupError(str(error)) from None
        words = "the engine does not know this session (any more)" if token else logins.NEEDED
        raise StartupError(words) from None
    except FeedError as error:
        raise StartupError(
            f"{error}; start one with `tradeback run` or `tradeback demo`, or name another with --url"
        ) from None


def _facts(url: str) -> "Facts":
    from tradeback.cli.tail_facts import Facts

    return Facts(url)


def _hush() -> None:
    """What the client logs is told by its events as well."""
    import logging

    logging.getLogger("tradeback.client").addHandler(logging.NullHandler())


async def _print_all(feed: "Feed", lines: Lines, facts: "Facts | None") -> None:
    from time import time_ns

    async for event in feed.events():
        if facts is not None:
            facts.take(event, feed, time_ns() / 1e6)
        found = lines.of(event, feed)
        if found:
            _write(found)
        if not lines.left:
            return


async def _print_both(feed: "Feed", lines: Lines, facts: "Facts", url: str, token: str) -> None:
    """Lines, and the facts once a second."""
    from tradeback.cli.tail_poll import EVERY_S, now_ms, polling
    from tradeback.ops.race import race

    async def print_facts() -> None:
        import orjson

        while True:
            await asyncio.sleep(EVERY_S)
            facts.refresh(EVERY_S)
            _write([orjson.dumps(facts.as_json(now_ms())).decode()])

    async with polling(url, token, facts) as poll:
        await race(_print_all(feed, lines, facts), poll.run(), print_facts())


def _to_stderr(text: str) -> None:
    click.echo(text, err=True)


def _note(event: "Control", feed: "Feed", say: Say) -> None:
    """Text messages that matter to the reader. An error that leaves nothing to show ends, and so does the
    end of the session."""
    if event.type == "error":
        text = str(event.message.get("message", event.message))
        if not feed.symbols:
            raise StartupError(text)
        say(f"tradeback: {text}")
    elif event.type == "disconnected":
        reason = str(event.message["reason"])
        if reason.startswith(POLICY):
            raise TradebackError(reason)
        say(f"tradeback: {reason}; connecting again")


def _note_gap(gap: "Gap", say: Say) -> None:
    """A gap's new state."""
    span = f"ids {gap.first_id} to {gap.last_id}"
    say(f"tradeback: gap in {gap.symbol}, {span}: {gap.state}, {gap.missing} missing")


def _lines(batch: "Batch | BatchV1", feed: "Feed", as_json: bool, lines_max: int) -> list[str]:
    """The entries of one batch, `lines_max` at most."""
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
    return lines


def _write(lines: list[str]) -> None:
    """In one write."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _json_line(symbol: str, price: float, volume: float, recv_ns: int) -> str:
    import orjson

    fields: dict[str, Any] = {"symbol": symbol, "price": price, "volume": volume, "recv_ns": recv_ns}
    return orjson.dumps(fields).decode()
