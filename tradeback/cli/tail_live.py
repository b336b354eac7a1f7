"""`tradeback tail` on a terminal: trades scroll by, and the page's facts stand below them."""

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

from rich.console import Console, ConsoleDimensions
from rich.text import Text

from tradeback.cli.pinned import Pinned
from tradeback.cli.tail_facts import Facts
from tradeback.cli.tail_poll import now_ms
from tradeback.cli.tail_screen import plain, screen
from tradeback.ops.race import race

if TYPE_CHECKING:
    from tradeback.cli.tail import Lines
    from tradeback.cli.tail_poll import Poll
    from tradeback.client import Feed

DRAW_S: Final = 0.1
"""How often lines that have come are shown."""
STATUS_S: Final = 0.5
"""How often the facts are."""
SHARE: Final = 0.6
"""Of the terminal's height that the facts may take beside the lines."""
HEIGHT_MIN: Final = 4
RULE: Final = "─"
"""Between the lines and the facts."""


class Live:
    """One terminal with its facts. `say` is where notes go."""

    def __init__(self, facts: Facts, *, board: bool) -> None:
        self._facts, self._board = facts, board
        self._console = Console(file=sys.stdout, force_terminal=True, highlight=False)
        self._pinned = Pinned(sys.stdout)
        self._above: list[str] = []
        self._status: list[tuple[str, int]] = []
        self._made_s = self._refreshed_s = 0.0

    def say(self, text: str) -> None:
        """A note: above the status, and on stderr where that leads elsewhere."""
        self._above += self._drawn([Text(plain(text), style="yellow")])
        if not sys.stderr.isatty():
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    async def run(self, feed: "Feed", poll: "Poll", lines: "Lines") -> None:
        """Until enough lines are out, or it is cancelled. The last status stays on the screen."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGCONT, self._pinned.forget)
        try:
            await race(self._read(feed, lines), poll.run(), self._draw())
        finally:
            self._show(asyncio.get_running_loop().time(), whole=True)
            self._pinned.close()

    async def _read(self, feed: "Feed", lines: "Lines") -> None:
        async for event in feed.events():
            self._facts.take(event, feed, now_ms())
            self._above += lines.of(event, feed)
            if not lines.left:
                return

    async def _draw(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._show(loop.time())
            await asyncio.sleep(DRAW_S)

    def _show(self, now_s: float, *, whole: bool = False) -> None:
        columns, rows = terminal_size()
        is_due = whole or now_s - self._made_s >= STATUS_S
        if is_due:
            if self._refreshed_s and now_s - self._refreshed_s >= STATUS_S:
                self._facts.refresh(now_s - self._refreshed_s)
                self._refreshed_s = now_s
            self._refreshed_s = self._refreshed_s or now_s
            self._made_s = now_s
            self._console.size = ConsoleDimensions(columns, rows)
            height = max(HEIGHT_MIN, rows - 2 if self._board else int(rows * SHARE))
            found = screen(self._facts, columns - 1, min(height, max(1, rows - 2)), now_ms())
            if not self._board:
                found.insert(0, Text(RULE * (columns - 1), style="dim"))
            self._status = list(zip(self._drawn(found), (line.cell_len for line in found), strict=True))
        if is_due or self._above:
            above, self._above = self._above, []
            self._pinned.draw(above, self._status, columns)

    def _drawn(self, lines: list[Text]) -> list[str]:
        """Lines with the terminal's colours, each on a line of its own however long it is."""
        with self._console.capture() as capture:
            for line in lines:
                self._console.print(line, soft_wrap=True)
        encoding = sys.stdout.encoding or "utf-8"
        return capture.get().encode(encoding, "replace").decode(encoding).splitlines()


def terminal_size() -> tuple[int, int]:
    """Columns and rows of the terminal now; 80 and 24 where it does not tell."""
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        return 80, 24
    return columns or 80, rows or 24
