"""A terminal of our own: what stands on it, and a command that runs in it."""

import asyncio
import codecs
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from rich.cells import cell_len

UNTIL_S = 60.0


class Terminal:
    """Rows of a terminal, those that have scrolled out of sight too. It breaks long lines, ignores colours,
    and knows of commands only those that Pinned gives."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.rows = [""]
        self.at = 0

    @property
    def end(self) -> str:
        """The last rows."""
        return "\n".join(self.rows[-40:])

    def narrow(self, columns: int) -> None:
        """Break all rows anew, as terminals do; the cursor stays behind the same character."""
        self.columns = columns
        rows: list[str] = []
        for place, row in enumerate(self.rows):
            rows += [row[start : start + columns] for start in range(0, max(1, len(row)), columns)]
            if place == self.at:
                self.at = len(rows) - 1
        self.rows = rows

    def take(self, text: str) -> None:
        for part in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|\n|\r|[^\x1b\n\r]+", text):
            if part.endswith("A") and part.startswith("\x1b"):
                self.at -= int(part[2:-1])
                assert self.at >= 0
            elif part == "\x1b[J":
                self.rows[self.at :] = [""]
            elif part == "\n":
                self._down()
            elif part != "\r" and not part.startswith("\x1b"):
                self._write(part)

    def _write(self, text: str) -> None:
        for letter in text:
            if cell_len(self.rows[self.at]) + cell_len(letter) > self.columns:
                self._down()
            self.rows[self.at] += letter

    def _down(self) -> None:
        self.at += 1
        if self.at == len(self.rows):
            self.rows.append("")


class Seat:
    """A command in front of a Terminal."""

    def __init__(self, process: asyncio.subprocess.Process, master: int, screen: Terminal) -> None:
        self.process, self.screen = process, screen
        self._master = master
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._came = asyncio.Event()
        self._held = ""
        self.text = ""
        """Everything that was written, colours and commands left out."""
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            piece = os.read(self._master, 1 << 16)
        except OSError:  # the other end was closed
            piece = b""
        if not piece:
            asyncio.get_running_loop().remove_reader(self._master)
        self._held += self._decoder.decode(piece).replace("\r\n", "\n")
        # A command to the terminal that is cut in two waits for its rest.
        cut = self._held.rfind("\x1b")
        whole = cut < 0 or re.match(r"\x1b\[[?0-9;]*[A-Za-z]", self._held[cut:]) is not None
        taken, self._held = (self._held, "") if whole else (self._held[:cut], self._held[cut:])
        self.screen.take(taken)
        self.text += re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", taken)
        self._came.set()

    def type(self, text: str) -> None:
        """What somebody types; "\x03" is Ctrl-C."""
        os.write(self._master, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Make the terminal narrower or wider."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.narrow(columns)

    async def until(self, true: Callable[[Terminal], bool], what: str) -> None:
        """Wait until the screen is so."""
        try:
            async with asyncio.timeout(UNTIL_S):
                while not true(self.screen):
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            shown = "\n".join(self.screen.rows[-30:])
            raise AssertionError(f"never on the screen: {what}; it shows\n{shown}") from None

    async def shows(self, *words: str) -> None:
        """Wait until all of these stand on the screen's last rows."""
        await self.until(lambda screen: all(word in screen.end for word in words), f"{words}")


def _own_terminal() -> None:
    """Ctrl-C and passwords come from this terminal, not from the one of whoever runs the tests.

    Nor does a hangup of this one go unheard because the tests run under nohup.
    """
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@asynccontextmanager
async def seated(
    *arguments: str, columns: int = 120, rows: int = 40, variables: Mapping[str, str] | None = None
) -> AsyncIterator[Seat]:
    """`tradeback ARGUMENTS` in a terminal of this size; killed at the end if it still runs."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    surroundings = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tradeback", *arguments, stdin=slave, stdout=slave, stderr=slave,
            env={**surroundings, "TERM": "xterm-256color", "PYTHONUTF8": "1", **(variables or {})},
            start_new_session=True, preexec_fn=_own_terminal,
        )  # fmt: skip
    finally:
        os.close(slave)
    seat = Seat(process, master, Terminal(columns))
    try:
        yield seat
    finally:
        asyncio.get_running_loop().remove_reader(master)
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(master)
