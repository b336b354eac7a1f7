"""`tradeback user`: who may log in."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tradeback.cli.complete import complete_symbol_list, complete_users
from tradeback.cli.options import config_option
from tradeback.model.errors import StartupError, StoreError

if TYPE_CHECKING:
    from tradeback.stores.ports import UserRecord
    from tradeback.stores.users import Users

T = TypeVar("T")

_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from stdin instead of asking for it."
)


@click.group(short_help="Users: add, list, passwd, disable, enable, allow, remove.")
def user() -> None:
    """Who may log in where auth.mode is `required`, and has a market watch of his own.

    Users live in the registry: MySQL where MYSQL_HOST is set, else a file under DATA_DIR. A running engine
    sees every change within a second.

    \b
    Examples:
      tradeback user add alice
      pass show tradeback/alice | tradeback user add alice --password-stdin
      tradeback user list
    """


@user.command()
@click.argument("name")
@_stdin
@config_option
def add(name: str, password_stdin: bool, config_path: str | None) -> None:
    """Add a user.

    \b
    Example:
      tradeback user add alice --password-stdin < password.txt
    """
    password = _password(password_stdin)
    made = _run(config_path, lambda users: users.add(name, password))
    click.echo(f"user {made.username} added")


@user.command("list")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Plain JSON instead of a table.")
def list_users(config_path: str | None, as_json: bool) -> None:
    """List all users.

    \b
    Example:
      tradeback user list --json
    """
    found = _run(config_path, lambda users: users.all())
    if as_json:
        import json

        click.echo(json.dumps([_shown(each) for each in found], indent=2, ensure_ascii=False))
        return
    for each in map(_shown, found):
        state = "active" if each["is_active"] else "disabled"
        click.echo(f"{each['id']:>6}  {state:8}  {each['created_at']}  {each['username']}")


@user.command()
@click.argument("name", shell_complete=complete_users)
@_stdin
@config_option
def passwd(name: str, password_stdin: bool, config_path: str | None) -> None:
    """Set another password and end all sessions of the user.

    \b
    Example:
      tradeback user passwd alice
    """
    password = _password(password_stdin)
    done = _run(config_path, lambda users: users.set_password(name, password))
    click.echo(f"user {done.username} has a new password; all sessions have ended")


@user.command()
@click.argument("name", shell_complete=complete_users)
@config_option
def disable(name: str, config_path: str | None) -> None:
    """Keep the user but refuse the log-in; ends all sessions.

    \b
    Example:
      tradeback user disable alice
    """
    done = _run(config_path, lambda users: users.set_active(name, False))
    click.echo(f"user {done.username} is disabled; all sessions have ended")


@user.command()
@click.argument("name", shell_complete=complete_users)
@config_option
def enable(name: str, config_path: str | None) -> None:
    """Let a disabled user log in again.

    \b
    Example:
      tradeback user enable alice
    """
    done = _run(config_path, lambda users: users.set_active(name, True))
    click.echo(f"user {done.username} may log in")


@user.command()
@click.argument("name", shell_complete=complete_users)
@click.argument("symbols", metavar="SYMBOLS", shell_complete=complete_symbol_list)
@config_option
def allow(name: str, symbols: str, config_path: str | None) -> None:
    """Let the user see these symbols and no others, or * for all; ends all sessions.

    \b
    Examples:
      tradeback user allow alice BTCUSDT,ETHUSDT
      tradeback user allow alice '*'
    """
    listed = frozenset(word.strip().upper() for word in symbols.split(",") if word.strip())
    if not listed:
        raise click.UsageError("name some symbols with commas between them, or * for all")
    seen = None if "*" in listed else listed
    done = _run(config_path, lambda users: users.allow(name, seen))
    words = "everything" if seen is None else ", ".join(sorted(seen))
    click.echo(f"user {done.username} may see {words}; all sessions have ended")


@user.command()
@click.argument("name", shell_complete=complete_users)
@config_option
def remove(name: str, config_path: str | None) -> None:
    """Remove a user with sessions and market watch.

    \b
    Example:
      tradeback user remove alice
    """
    done = _run(config_path, lambda users: users.remove(name))
    click.echo(f"user {done.username} is removed")


def _password(from_stdin: bool) -> str:
    if not from_stdin:
        if not sys.stdin.isatty():
            raise click.UsageError(
                "there is no terminal to ask for the password: give it with --password-stdin"
            )
        answer: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        return answer
    given = sys.stdin.buffer.read(1 << 16)
    try:
        # One line end is the file's or the pipe's, not the password's.
        return given.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise click.UsageError("the password on stdin is no text in UTF-8") from None


def _shown(record: "UserRecord") -> dict[str, Any]:
    from tradeback.stores.registry_rows import moment_text

    return {
        "id": record.id,
        "username": record.username,
        "is_active": record.is_active,
        "symbols": None if record.symbols is None else sorted(record.symbols),
        "created_at": f"{moment_text(record.created_ns)[:19]}Z",
    }


def _run(config_path: str | None, work: "Callable[[Users], Awaitable[T]]") -> T:
    """Call `work` on the registry of the configuration. Its refusals end with exit code 2."""
    from tradeback.stores.users import BadUser

    try:
        return asyncio.run(_on_registry(config_path, work))
    except BadUser as error:
        raise StartupError(str(error)) from None
    except StoreError as error:
        raise StartupError(str(error)) from None


async def _on_registry(config_path: str | None, work: "Callable[[Users], Awaitable[T]]") -> T:
    from pathlib import Path

    from tradeback import settings
    from tradeback.ops.clock import SystemClock
    from tradeback.stores.registry import mysql_registry
    from tradeback.stores.registry_sqlite import FILE_NAME, RegistrySqlite
    from tradeback.stores.users import Users

    config = settings.load(config_path, os.environ)
    if config.mysql.host:
        remote = mysql_registry(config)
        try:
            await remote.check()
            return await work(Users(remote, SystemClock()))
        finally:
            await remote.close()
    local = RegistrySqlite(Path(config.data_dir) / FILE_NAME)
    try:
        return await work(Users(local, SystemClock()))
    finally:
        local.close()
