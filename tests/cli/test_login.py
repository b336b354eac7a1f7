"""cli.login: a session for `tail`, by a token or a log-in, on a guarded engine; secrets stay out of sight."""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.api.access_world import SECRET, AccessWorld, guarded, token_of
from tests.cli.terminal import seated
from tradeback.cli import login
from tradeback.cli.login import Login
from tradeback.cli.main import main
from tradeback.model.config import AuthConfig

REQUIRED = AuthConfig(mode="required")


async def tail(
    world: AccessWorld, *arguments: str, stdin: str = "", **variables: str
) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tradeback", "tail", "BTCUSDT", "--url", world.url, *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **variables},
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
    for shown in (out, err):
        assert SECRET.encode() not in shown
        assert b"hunter3" not in shown
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def trading(world: AccessWorld) -> AsyncIterator[None]:
    """Trades of the first symbol, all the time."""

    async def trade() -> None:
        while True:
            world.trade((1, 42_000.5, 1.0))
            await asyncio.sleep(0.02)

    task = asyncio.ensure_future(trade())
    try:
        yield
    finally:
        failed = task.exception() if task.done() else None
        task.cancel()
        assert failed is None, failed


def live_sessions(folder: Path) -> int:
    with sqlite3.connect(folder / "registry.sqlite") as connection:
        (count,) = connection.execute("SELECT COUNT(*) FROM user_sessions WHERE is_active").fetchone()
    connection.close()
    return int(count)


async def test_a_guarded_engine(tmp_path: Path) -> None:
    async with guarded(tmp_path, auth=REQUIRED) as world, trading(world):
        await world.user()
        token = token_of(await world.logged_in())
        (tmp_path / "token").write_text(f"{token}\n")
        count = ("--count", "1")
        by_file, by_variable, by_name, wrong, nobody, refused, facts = await asyncio.gather(
            tail(world, "--token-file", str(tmp_path / "token"), *count),
            tail(world, *count, TRADEBACK_TOKEN=token),
            tail(world, "--login", "alice", "--password-stdin", *count, stdin=f"{SECRET}\n"),
            tail(world, *count, TRADEBACK_TOKEN="hunter3"),
            tail(world, *count),
            tail(world, "--login", "alice", "--password-stdin", *count, stdin="hunter3-is-wrong"),
            tail(world, "--json", "--token-file", "-", *count, stdin=token),
        )
        assert live_sessions(tmp_path) == 1, "who logged in has logged out"
    for code, out, err in (by_file, by_variable, by_name):
        assert (code, err) == (0, ""), err
        assert "42000.50" in out
    assert json.loads(facts[1])["price"] == 42_000.5
    assert (wrong[0], "does not know this session" in wrong[2]) == (2, True), wrong
    assert (nobody[0], "--login NAME" in nobody[2]) == (2, True), nobody
    assert (refused[0], "refuses the log-in of 'alice'" in refused[2]) == (2, True), refused


async def test_a_password_is_asked_for_and_not_shown(tmp_path: Path) -> None:
    async with guarded(tmp_path, auth=REQUIRED) as world, trading(world):
        await world.user()
        async with seated("tail", "BTCUSDT", "--login", "alice", "--url", world.url) as seat:
            await seat.shows("Password:")
            seat.type(f"{SECRET}\n")
            await seat.shows("● live", "42,000.50", "engine ")
            assert live_sessions(tmp_path) == 1
            seat.type("\x03")
            assert await seat.process.wait() == 0
            assert SECRET not in seat.text
        assert live_sessions(tmp_path) == 0


async def test_a_window_that_is_closed_logs_out(tmp_path: Path) -> None:
    async with guarded(tmp_path, auth=REQUIRED) as world, trading(world):
        await world.user()
        async with seated("tail", "BTCUSDT", "--login", "alice", "--url", world.url) as seat:
            await seat.shows("Password:")
            seat.type(f"{SECRET}\n")
            await seat.shows("● live", "42,000.50")
            seat.process.send_signal(signal.SIGHUP)
            await seat.process.wait()
        assert live_sessions(tmp_path) == 0


async def test_a_session_that_ends_ends_the_command(tmp_path: Path) -> None:
    async with guarded(tmp_path, auth=REQUIRED) as world, trading(world):
        await world.user()
        http = await world.logged_in()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tradeback", "tail", "BTCUSDT", "--url", world.url, "--json", "--facts",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "TRADEBACK_TOKEN": token_of(http)},
        )  # fmt: skip
        assert process.stdout is not None
        facts: dict[str, Any] = {}
        while facts.get("type") != "facts" or not facts["status"]:
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            assert line, "it ended"
            facts = json.loads(line)
        assert facts["symbols"][0]["price"] == 42_000.5
        async with http.post("/api/v1/auth/logout") as answer:
            assert answer.status == 204
        _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert "session" in err.decode()
    assert "connecting again" not in err.decode()


def test_secrets_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEBACK_TOKEN", " abc ")
    assert login.read(None, False, None).secret == "abc"
    (tmp_path / "token").write_text("from-file\r\n")
    assert login.read(None, False, str(tmp_path / "token")) == Login(secret="from-file")
    assert "from-file" not in repr(Login("alice", "from-file"))


@pytest.mark.parametrize("held", ["", "\n", "two words", "two\nlines", "\x1b[2J"])
def test_what_is_no_token(tmp_path: Path, held: str) -> None:
    (tmp_path / "token").write_text(held)
    with pytest.raises(click.UsageError, match="holds no token"):
        login.read(None, False, str(tmp_path / "token"))


def test_wrong_usage() -> None:
    for words, reason in (
        (("--password-stdin",), "--password-stdin goes with --login"),
        (("--login", "a", "--token-file", "f"), "not both"),
        (("--login", "a"), "no terminal to ask"),
        (("--token-file", "/no/such/file"), "cannot be read"),
        (("--facts",), "--facts goes with --json"),
        (("--board",), "--board needs a terminal"),
    ):
        done = CliRunner().invoke(main, ["tail", "BTCUSDT", *words])
        assert (done.exit_code, reason in done.stderr) == (2, True), done.output


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("http://h:1", "http://h:1"),
        ("https://h/", "https://h"),
        ("ws://h:1/api/v1/ws", "http://h:1"),
        ("wss://h/behind/api/v1/ws", "https://h/behind"),
        ("h:8080", "http://h:8080"),
    ],
)
def test_addresses(given: str, wanted: str) -> None:
    assert login.http_url(given) == wanted
