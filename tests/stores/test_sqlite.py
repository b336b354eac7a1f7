"""How SQLite is opened: closing waits for the threads that read."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tradeback.stores.sqlite import Sqlite

COUNT = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT COUNT(*) FROM n"
)


def test_closing_waits_for_what_is_being_read(tmp_path: Path) -> None:
    """A cancelled task leaves its thread behind; without waiting this is a segmentation fault."""
    file, reading = Sqlite(tmp_path / "x.sqlite", "CREATE TABLE t(x)"), threading.Event()

    def count() -> int:
        with file.reading() as connection:
            reading.set()
            return int(connection.execute(COUNT).fetchone()[0])

    with ThreadPoolExecutor(4) as pool:
        counts = [pool.submit(count) for _ in range(4)]
        assert reading.wait(30)
        file.close()
        ended = [each.exception(60) or each.result() for each in counts]
    assert 300_000 in ended
    assert all(each == 300_000 or isinstance(each, sqlite3.ProgrammingError) for each in ended)


def test_what_is_closed_says_so(tmp_path: Path) -> None:
    file = Sqlite(tmp_path / "x.sqlite", "CREATE TABLE t(x)")
    with file.reading() as connection:
        assert connection.execute("SELECT COUNT(*) FROM t").fetchone() == (0,)
    file.close()
    file.close()
    with pytest.raises(sqlite3.ProgrammingError, match="has been closed"), file.reading():
        pass
    with pytest.raises(sqlite3.ProgrammingError), file.writing():
        pass
