"""The four servers: how each is started, when it is ready, how it is stopped."""

import json
import os
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, ClassVar

from tests.servers.process import Server, ServerFailed, ask, find_binary, free_port


class RedisServer(Server):
    """Redis without persistence; `extra` may switch it on (`"--appendonly", "yes"`)."""

    program, package = "redis-server", "redis-server"

    @property
    def address(self) -> str:
        """As REDIS_ADDR takes it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """As redis-py takes it."""
        return f"redis://{self.address}/0"

    def command(self) -> list[str]:
        """See Server."""
        options = ("--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", "--appendonly", "no")
        return ["redis-server", "--port", str(self.port), *options]

    def is_ready(self) -> bool:
        """See Server. A password makes it answer -NOAUTH, which is ready too."""
        return ask(self.port, b"PING\r\n").startswith((b"+PONG", b"-NOAUTH"))


class NatsServer(Server):
    """NATS with JetStream, whose files survive a restart."""

    program, package = "nats-server", "nats-server"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    @property
    def url(self) -> str:
        """As NATS_URL takes it."""
        return f"nats://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """See Server."""
        return ["nats-server", "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder / "js")]

    def is_ready(self) -> bool:
        """See Server."""
        return ask(self.port, b"").startswith(b"INFO")


class MariadbServer(Server):
    """MariaDB with user `root` and no password; `sql` runs statements as such."""

    program, package = "mariadbd", "mariadb-server-core"
    user, password = "root", ""

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    def command(self) -> list[str]:
        """See Server."""
        folder = self.folder
        return [
            "mariadbd", "--no-defaults", *_mariadb_user(), f"--datadir={self.data}",
            f"--socket={folder / 's.sock'}", f"--port={self.port}", "--bind-address=127.0.0.1",
            "--skip-name-resolve", f"--pid-file={folder / 'pid'}", "--skip-log-bin",
            "--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=8M",
        ]  # fmt: skip

    def prepare(self) -> None:
        """Make the system tables: half a second, 26 MB."""
        program = find_binary("mariadb-install-db")
        if program is None:
            raise ServerFailed("mariadb-install-db is not installed (package mariadb-server-core)")
        made = subprocess.run(
            [
                program, "--no-defaults", *_mariadb_user(), f"--datadir={self.data}",
                "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve",
                "--innodb-log-file-size=8M",
            ],
            cwd=self.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode:
            raise ServerFailed(f"mariadb-install-db: {made.stdout}{made.stderr}")

    def is_ready(self) -> bool:
        """See Server."""
        return b"MariaDB" in ask(self.port, b"")

    def sql(self, statements: str, database: str = "") -> list[list[str]]:
        """Run statements with the command-line client; rows of text. Raises ServerFailed."""
        program = find_binary("mariadb")
        if program is None:
            raise ServerFailed("mariadb is not installed (package mariadb-client-core)")
        where = ["--no-defaults", "-h", "127.0.0.1", "-P", str(self.port), "-u", self.user, "-N", "-B"]
        done = subprocess.run(
            [program, *where, *([database] if database else [])],
            input=statements, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise ServerFailed(done.stderr.strip())
        return [line.split("\t") for line in done.stdout.splitlines()]


class InfluxServer(Server):
    """InfluxDB 1.x, whose data survive a restart and a kill."""

    program, package = "influxd", "influxdb"

    def __init__(self, folder: Path, *extra: str, env: dict[str, str] | None = None) -> None:
        """See Server."""
        super().__init__(folder, *extra, env=env)
        self._inner_port = free_port()

    @property
    def url(self) -> str:
        """As INFLUX_URL takes it."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """See Server."""
        return ["influxd", "run", "-config", os.devnull]

    def environment(self) -> dict[str, str]:
        """See Server."""
        return {
            "INFLUXDB_REPORTING_DISABLED": "true",
            "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{self._inner_port}",
            "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{self.port}",
            "INFLUXDB_META_DIR": str(self.folder / "meta"),
            "INFLUXDB_DATA_DIR": str(self.folder / "data"),
            "INFLUXDB_DATA_WAL_DIR": str(self.folder / "wal"),
            "INFLUXDB_MONITOR_STORE_ENABLED": "false",
            "INFLUXDB_HTTP_LOG_ENABLED": "false",
        }

    def is_ready(self) -> bool:
        """See Server."""
        return b" 204 " in ask(self.port, b"GET /ping HTTP/1.0\r\n\r\n")

    def query(self, statement: str, database: str = "") -> list[dict[str, Any]]:
        """The series that an InfluxQL statement answers: name, tags, columns, values (times in ns).

        Raises ServerFailed when the server refuses the statement.
        """
        values = {"q": statement, "epoch": "ns", **({"db": database} if database else {})}
        request = urllib.request.Request(f"{self.url}/query", urllib.parse.urlencode(values).encode())
        try:
            with urllib.request.urlopen(request, timeout=20.0) as answer:
                (result,) = json.load(answer)["results"]
        except urllib.error.HTTPError as error:
            with error:
                raise ServerFailed(error.read().decode("utf-8", "replace")) from error
        if "error" in result:
            raise ServerFailed(result["error"])
        return list(result.get("series", ()))

    def values(self, statement: str, database: str) -> list[list[Any]]:
        """The rows of a statement that answers one series; empty when it answers none."""
        series = self.query(statement, database)
        return list(series[0]["values"]) if series else []


def _mariadb_user() -> list[str]:
    """mariadbd refuses to run as root unless told."""
    return ["--user=root"] if os.geteuid() == 0 else []
