"""`tradeback user`, on a file and on MariaDB."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.servers.kinds import MariadbServer
from tests.stores.accounts_world import database
from tradeback.cli.main import main

SECRET = "hunter2-correct-horse"


@pytest.fixture(params=["sqlite", "mysql"])
def environment(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    if request.param == "sqlite":
        yield
        return
    server: MariadbServer = request.getfixturevalue("mariadb_server")
    with database(server) as config:
        monkeypatch.setenv("MYSQL_HOST", config.host)
        monkeypatch.setenv("MYSQL_PORT", str(config.port))
        monkeypatch.setenv("MYSQL_DATABASE", config.database)
        monkeypatch.setenv("MYSQL_USER", config.user)
        yield


def user(*arguments: str, stdin: bytes = b"") -> tuple[int, str]:
    """Exit code, and everything that was said."""
    done = CliRunner().invoke(main, ["user", *arguments], input=stdin)
    said = done.output
    assert SECRET not in said
    assert "Traceback" not in said
    return done.exit_code, said


@pytest.mark.usefixtures("environment")
def test_a_user_s_life() -> None:
    password = f"{SECRET}\n".encode()
    assert user("add", "Alice", "--password-stdin", stdin=password) == (0, "user alice added\n")
    code, said = user("add", "alice", "--password-stdin", stdin=password)
    assert (code, "there is a user alice" in said) == (2, True)
    (listed,) = json.loads(user("list", "--json")[1])
    assert (listed["username"], listed["is_active"]) == ("alice", True)
    assert user("disable", "alice")[0] == 0
    assert "disabled" in user("list")[1]
    assert user("enable", "alice") == (0, "user alice may log in\n")
    assert user("passwd", "alice", "--password-stdin", stdin=password)[0] == 0
    assert user("allow", "alice", "btcusdt, ETHUSDT")[1].startswith("user alice may see BTCUSDT, ETHUSDT;")
    (listed,) = json.loads(user("list", "--json")[1])
    assert listed["symbols"] == ["BTCUSDT", "ETHUSDT"]
    assert user("allow", "alice", " , ")[0] == 2
    assert user("allow", "alice", "*")[1].startswith("user alice may see everything;")
    assert json.loads(user("list", "--json")[1])[0]["symbols"] is None
    assert user("remove", "alice") == (0, "user alice is removed\n")
    assert user("remove", "alice")[0] == 2
    assert user("list") == (0, "")


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("name", "password", "word"),
    [
        ("bob", b"short", "8 characters"),
        ("bob", b"\xff" * 20, "UTF-8"),
        ("b b", b"long enough", "letters, digits"),
        ("'; DROP TABLE users; --", b"long enough", "letters, digits"),
    ],
)
def test_refusals_are_one_line_and_2(name: str, password: bytes, word: str) -> None:
    code, said = user("add", name, "--password-stdin", stdin=password)
    assert (code, word in said) == (2, True)


def test_without_a_terminal_the_password_must_come_from_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    code, said = user("add", "alice")
    assert (code, "--password-stdin" in said) == (2, True)


def test_a_server_that_is_away_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("MYSQL_HOST", "127.0.0.1")
    monkeypatch.setenv("MYSQL_PORT", "1")
    monkeypatch.setenv("MYSQL_PASSWORD", SECRET)
    code, said = user("list")
    assert (code, "MySQL 127.0.0.1:1/tradeback cannot be reached" in said) == (2, True)
