"""Lines that scroll by, and a status below them that stays at the bottom of the terminal.

The status is drawn over itself; what scrolls goes above it, into the terminal's own history. A terminal that
was made narrower has broken the old status into more rows, which are counted, so that nothing is left behind.
"""

from collections.abc import Sequence
from typing import Protocol

UP = "\x1b[{}A"
CLEAR_BELOW = "\x1b[J"
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"
"""Draw what is between at once. Terminals that do not know it do nothing."""


class Out(Protocol):
    """Where it is drawn: a text stream."""

    def write(self, text: str, /) -> object:
        """Take some text."""

    def flush(self) -> None:
        """Show it."""


class Pinned:
    """One terminal. The cursor stands behind the status between two calls."""

    def __init__(self, out: Out) -> None:
        self._out = out
        self._cells: list[int] = []
        """Width of each row of the status that is drawn now."""

    def draw(self, above: Sequence[str], status: Sequence[tuple[str, int]], columns: int) -> None:
        """Let `above` scroll by, and draw a new status: lines with their widths, on that many columns."""
        rows = sum(max(1, -(-cells // max(1, columns))) for cells in self._cells)
        up = UP.format(rows - 1) if rows > 1 else ""
        text = "".join(f"{line}\n" for line in above) + "\n".join(line for line, _ in status)
        self._cells = [cells for _, cells in status]
        self._out.write(f"{BEGIN}\r{up}{CLEAR_BELOW}{text}{END}")
        self._out.flush()

    def forget(self) -> None:
        """Somebody else has written since: begin where the cursor is."""
        self._cells = []

    def close(self) -> None:
        """Leave the last status where it is, and the cursor below it."""
        if self._cells:
            self._cells = []
            self._out.write("\n")
            self._out.flush()
