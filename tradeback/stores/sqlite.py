"""How SQLite is opened here: one writing connection behind a lock, one reading connection per thread."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from tradeback.model.errors import StartupError

BUSY_TIMEOUT_S = 10.0
"""How long to wait for another process (a backup, a second engine by mistake) that holds the file."""


class Sqlite:
    """A database file in WAL mode, synchronous=NORMAL: a killed process loses nothing, a loss of power
    perhaps the last transactions, never the consistency.

    `steps`: the n-th brings the schema from version n to n + 1, a new file goes through all of them. Each is
    a transaction of its own, so that a process which is killed in between leaves a whole version.
    Raises StartupError when the file cannot be opened, or was written by a newer version of its schema.
    """

    def __init__(self, path: Path, *steps: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._local = threading.local()
        self._readers: list[tuple[sqlite3.Connection, threading.Lock]] = []
        """With each the lock that its thread holds while it reads."""
        self._closed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._connect()
            self._prepare(steps)
        except (OSError, sqlite3.Error) as error:
            raise StartupError(
                f"cannot open {path}: {error}. Make it a writable SQLite file, "
                "or set DATA_DIR to another folder"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    def _prepare(self, steps: tuple[str, ...]) -> None:
        self._writer.execute("PRAGMA journal_mode=WAL")
        while (held := self._version()) != len(steps):
            if held > len(steps):
                self._writer.close()
                raise StartupError(
                    f"{self.path} has schema version {held}, this program knows {len(steps)}: "
                    "install the newer tradeback, or set DATA_DIR to another folder"
                )
            with self.writing() as connection:
                if self._version() == held:  # else another process was quicker
                    for statement in statements(steps[held]):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version={held + 1}")

    def _version(self) -> int:
        return int(self._writer.execute("PRAGMA user_version").fetchone()[0])

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction on the writing connection, one thread at a time; rolled back on any exception."""
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the file on this thread's own connection."""
        self._check_open()
        held: tuple[sqlite3.Connection, threading.Lock] | None = getattr(self._local, "held", None)
        if held is None:
            held = self._local.held = self._new_reader()
        connection, reading = held
        with reading:
            self._check_open()
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    def _new_reader(self) -> tuple[sqlite3.Connection, threading.Lock]:
        with self._lock:
            self._check_open()
            connection = self._connect()
            connection.execute("PRAGMA query_only=ON")
            made = connection, threading.Lock()
            self._readers.append(made)
        return made

    def _check_open(self) -> None:
        if self._closed:
            raise sqlite3.ProgrammingError(f"{self.path} has been closed")

    def close(self) -> None:
        """Close every connection, each when its thread has finished what it reads.

        Whoever has cancelled a task has not ended its thread, and SQLite crashes when a connection goes away
        under a statement.
        """
        self._closed = True
        with self._lock:
            for connection, reading in self._readers:
                with reading:
                    connection.close()
            self._readers.clear()
            self._writer.close()


def statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: `executescript` would end the transaction around it."""
    statement = ""
    for part in script.split(";"):
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
