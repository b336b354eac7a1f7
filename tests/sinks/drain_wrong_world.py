"""A server that is wrong in one way: what its drains say of it, and that they go on once it is mended."""

import json
import logging
import re
import signal
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers.kinds import InfluxServer, NatsServer
from tests.sinks.drain_world import until
from tradeback.exchange.backoff import Backoff
from tradeback.sinks.drain import Drain

WAIT_S = 60.0
SECRETS = ("hunter2", "correct-horse")
"""What passwords in these tests begin with."""


def start(drains: Sequence[Drain]) -> None:
    """Drains that ask a server that is down more often than in earnest."""
    for drain in drains:
        drain._backoff = Backoff(0.01, 0.1)
        drain.start()


async def told(
    drains: Sequence[Drain], remedy: str, caplog: pytest.LogCaptureFixture, *, only: bool = True
) -> None:
    """Every drain's health names the remedy, the log does in one line, and, if `only`, says nothing else."""
    failures = {}
    for drain in drains:
        await until(lambda drain=drain: drain.health().state == "down", WAIT_S)  # type: ignore[misc]
        await until(lambda drain=drain: remedy in (drain.health().last_error or ""), WAIT_S)  # type: ignore[misc]
        health = drain.health()
        assert health.name == f"sink:{drain.name}"
        assert "\n" not in (health.last_error or "")
        failures[drain.name] = drain.errors
    await until(lambda: all(drain.errors > failures[drain.name] + 1 for drain in drains), WAIT_S)
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    # A machine that is busy for so long that a time-out fires is another trouble.
    warned = [line for line in warned if "does not answer" not in line]
    assert len([line for line in warned if remedy in line]) == 1, warned
    assert not only or len(warned) == 1, warned
    no_secret(caplog, drains)


async def mended(drains: Sequence[Drain], end: int, caplog: pytest.LogCaptureFixture) -> None:
    """Without a restart: every drain is well and has record `end`."""
    for drain in drains:
        await until(
            lambda drain=drain: drain.health().state == "ok" and drain.position.sequence >= end,  # type: ignore[misc]
            WAIT_S,
        )
        assert drain.health().last_error is None
    again = [record for record in caplog.records if "takes records again" in record.getMessage()]
    assert len(again) <= 1, "whoever told of the trouble tells of its end"
    no_secret(caplog, drains)


def no_secret(caplog: pytest.LogCaptureFixture, drains: Sequence[Drain]) -> None:
    """Neither log nor health holds one."""
    everything = caplog.text + "".join(str(drain.health()) for drain in drains)
    assert not [secret for secret in SECRETS if secret in everything]


class GuardedInflux(InfluxServer):
    """InfluxDB 1.x that asks for credentials; `sql` runs statements as its administrator."""

    def environment(self) -> dict[str, str]:
        """See Server."""
        return {**super().environment(), "INFLUXDB_HTTP_AUTH_ENABLED": "true"}

    def sql(self, *statements: str) -> None:
        """Statements of the administrator, who is made by the first one."""
        who = urllib.parse.urlencode({"u": "admin", "p": "correct-horse-admin"})
        for statement in statements:
            body = urllib.parse.urlencode({"q": statement}).encode()
            with urllib.request.urlopen(f"{self.url}/query?{who}", body, timeout=20.0) as answer:
                (result,) = json.load(answer)["results"]
            assert "error" not in result, result

    def make_admin(self) -> None:
        """The first user of a server may be made without credentials."""
        statement = "CREATE USER admin WITH PASSWORD 'correct-horse-admin' WITH ALL PRIVILEGES"
        body = urllib.parse.urlencode({"q": statement}).encode()
        with urllib.request.urlopen(f"{self.url}/query", body, timeout=20.0) as answer:
            assert "error" not in json.load(answer)["results"][0]

    def count(self, database: str) -> int:
        """Points in `trades`."""
        values = {"q": "SELECT count(price) FROM trades", "db": database, "u": "admin"}
        query = urllib.parse.urlencode({**values, "p": "correct-horse-admin"})
        with urllib.request.urlopen(f"{self.url}/query?{query}", timeout=20.0) as answer:
            (result,) = json.load(answer)["results"]
        return int(result["series"][0]["values"][0][1]) if "series" in result else 0


class ConfiguredNats(NatsServer):
    """A server whose configuration changes while it runs."""

    def __init__(self, folder: Path, text: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "nats.conf"
        super().__init__(folder / "server", "-c", str(self._file))
        self._write(text)

    def _write(self, text: str) -> None:
        """The place is named in the file: a server takes no file that names another one than before."""
        self._file.write_text(text.replace("jetstream: {}", f'jetstream {{ store_dir: "{self.folder}" }}'))

    def command(self) -> list[str]:
        """See Server. JetStream is the configuration's business."""
        return ["nats-server", "-a", "127.0.0.1", "-p", str(self.port)]

    def reload(self, text: str) -> None:
        """What an operator does: edit the file, tell the server."""
        self._write(text)
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)


@contextmanager
def old_redis(version: str) -> Iterator[int]:
    """The port of something that answers PING and INFO as an old Redis does."""
    info = f"# Server\r\nredis_version:{version}\r\nrole:master\r\n"
    answers = {b"PING": b"+PONG\r\n", b"INFO": f"${len(info)}\r\n{info}\r\n".encode()}

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(4096):
                for command in filter(None, re.split(rb"(?=\*\d+\r\n)", data.upper())):
                    word = next((word for word in answers if word in command), b"")
                    connection.sendall(answers.get(word, b"-ERR unknown command\r\n"))

    def listen() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10.0)
