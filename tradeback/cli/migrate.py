"""`tradeback migrate`: the registry's tables to this version, or back."""

import os
from typing import TYPE_CHECKING

import click

from tradeback.cli.complete import complete_revisions
from tradeback.cli.options import config_option

if TYPE_CHECKING:
    from tradeback.stores.migrate import Migration

_to = click.option(
    "--to",
    metavar="REV",
    shell_complete=complete_revisions,
    help="Revision to end at, or base; `status` lists them.",
)


@click.group(short_help="Bring the registry's tables to this version, or back.")
def migrate() -> None:
    """Bring the registry's tables to this version, or back.

    The registry is MySQL or MariaDB where MYSQL_HOST is set, else registry.sqlite under DATA_DIR. The engine
    brings the SQLite file up by itself; MySQL waits for `tradeback migrate up`.

    \b
    Examples:
      tradeback migrate status
      MYSQL_HOST=db MYSQL_PASSWORD=... tradeback migrate up
    """


@migrate.command()
@config_option
def status(config_path: str | None) -> int:
    """Where the registry stands. Exit code 1 when it is not at this program's revision.

    \b
    Example:
      tradeback migrate status
    """
    found = _open(config_path).status()
    click.echo(f"{found.where}: {found.current}")
    passed = found.current in dict(found.steps)
    for revision, title in found.steps:
        click.echo(f"  [{'x' if passed else ' '}] {revision}  {title}")
        passed = passed and revision != found.current
    if found.is_newest:
        return 0
    known = found.current == "base" or found.current in dict(found.steps)
    click.echo("run `tradeback migrate up`" if known else "install the newer tradeback", err=True)
    return 1


@migrate.command()
@config_option
@_to
def up(config_path: str | None, to: str | None) -> None:
    """Migrate to the newest revision, or to one. Makes the database or file when it is missing.

    Safe to run again, also after one that was killed, and beside running engines.

    \b
    Example:
      tradeback migrate up
    """
    migration = _open(config_path)
    before, after = migration.up(to)
    click.echo(f"{migration.where}: {'is at' if before == after else f'{before} ->'} {after}")


@migrate.command()
@config_option
@_to
@click.option("--yes", is_flag=True, help="Do not ask.")
def down(config_path: str | None, to: str | None, yes: bool) -> None:
    """Migrate back, one revision unless --to names another. What the tables hold that go is lost.

    Stop the engines first.

    \b
    Example:
      tradeback migrate down --to 0001
    """
    migration = _open(config_path)
    to = to or migration.before()
    if not yes:
        click.confirm(
            f"Take {migration.where} back to {to}, and lose what the newer tables hold?", abort=True
        )
    before, after = migration.down(to)
    click.echo(f"{migration.where}: {'is at' if before == after else f'{before} ->'} {after}")


def _open(config_path: str | None) -> "Migration":
    from tradeback import settings
    from tradeback.model.errors import StartupError

    config = settings.load(config_path, os.environ)
    try:
        from tradeback.stores.migrate import Migration
    except ModuleNotFoundError as error:
        raise StartupError(
            f"{error.name} is not installed: pip install 'tradeback[mysql]' (the engine needs neither it nor "
            "this command for its SQLite file)"
        ) from None
    return Migration(config)
