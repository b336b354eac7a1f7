"""cli.pinned: what stands on a terminal after some drawing, by a small terminal of our own."""

import io

import pytest

from tests.cli.terminal import Terminal
from tradeback.cli.pinned import Pinned


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def drawn(terminal: Terminal, out: io.StringIO) -> list[str]:
    terminal.take(out.getvalue())
    out.seek(0)
    out.truncate()
    return terminal.rows


def status(*lines: str) -> list[tuple[str, int]]:
    return [(line, len(line)) for line in lines]


def test_lines_scroll_and_the_status_stays_below(out: io.StringIO) -> None:
    terminal, pinned = Terminal(40), Pinned(out)
    pinned.draw(["first"], status("status", "of two"), 40)
    assert drawn(terminal, out) == ["first", "status", "of two"]
    pinned.draw([], status("status", "another", "of three"), 40)
    assert drawn(terminal, out) == ["first", "status", "another", "of three"]
    pinned.draw(["second", "third"], status("short"), 40)
    assert drawn(terminal, out) == ["first", "second", "third", "short"]
    pinned.close()
    assert drawn(terminal, out) == ["first", "second", "third", "short", ""]


def test_a_terminal_that_was_made_narrower_keeps_nothing_of_the_old_status(out: io.StringIO) -> None:
    terminal, pinned = Terminal(40), Pinned(out)
    pinned.draw(["line"], status("x" * 39, "y" * 21, "z"), 40)
    drawn(terminal, out)
    terminal.narrow(20)
    assert len(terminal.rows) == 6
    pinned.draw([], status("new", "status"), 20)
    assert drawn(terminal, out) == ["line", "new", "status"]


def test_after_somebody_else_has_written_it_begins_anew(out: io.StringIO) -> None:
    terminal, pinned = Terminal(40), Pinned(out)
    pinned.draw([], status("old", "status"), 40)
    drawn(terminal, out)
    terminal.take("\n$ fg\n")
    pinned.forget()
    pinned.draw([], status("new"), 40)
    assert drawn(terminal, out) == ["old", "status", "$ fg", "new"]


def test_nothing_was_drawn(out: io.StringIO) -> None:
    Pinned(out).close()
    assert out.getvalue() == ""
