"""`tradeback migrate`: what it says and how it ends."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.servers.kinds import MariadbServer
from tests.stores.accounts_world import database
from tradeback.cli.migrate import migrate
from tradeback.model.errors import StartupError
from tradeback.stores import migrations

VERSIONS = Path(migrations.__path__[0]) / "versions"
*_, BEFORE, HEAD = sorted(path.name[1:5] for path in VERSIONS.glob("r*.py"))


def call(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(migrate, list(arguments), input=stdin, standalone_mode=False)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    return tmp_path


def test_up_status_down(folder: Path) -> None:
    status = call("status")
    assert (status.return_value, "[ ] 0001" in status.output) == (1, True)
    assert "tradeback migrate up" in status.stderr
    assert not (folder / "registry.sqlite").exists()
    assert call("up").output == f"{folder / 'registry.sqlite'}: base -> {HEAD}\n"
    assert call("up").output == f"{folder / 'registry.sqlite'}: is at {HEAD}\n"
    status = call("status")
    assert (status.return_value, f"[x] {HEAD}" in status.output) == (0, True)
    assert call("down", stdin="n\n").exception is not None
    assert call("status").return_value == 0
    assert f"{HEAD} -> {BEFORE}" in call("down", stdin="y\n").output
    status = call("status")
    assert (status.return_value, f"[x] {BEFORE}" in status.output) == (1, True)
    assert f"[ ] {HEAD}" in status.output
    assert f"{BEFORE} -> base" in call("down", "--to", "base", "--yes").output


def test_mysql(mariadb_server: MariadbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with database(mariadb_server, migrated=False) as config:
        monkeypatch.setenv("MYSQL_HOST", config.host)
        monkeypatch.setenv("MYSQL_PORT", str(config.port))
        monkeypatch.setenv("MYSQL_DATABASE", config.database)
        monkeypatch.setenv("MYSQL_USER", config.user)
        assert call("status").return_value == 1
        assert call("up").output.endswith(f"/{config.database}: base -> {HEAD}\n")
        assert call("status").return_value == 0


def test_without_alembic_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tradeback.stores.migrate", raising=False)
    monkeypatch.setitem(sys.modules, "alembic", None)
    error = call("up").exception
    assert isinstance(error, StartupError)
    assert "pip install 'tradeback[mysql]'" in str(error)
