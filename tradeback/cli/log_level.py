"""`tradeback log-level`: which component logs from which level on, and changing that while engines run."""

import os
from typing import TYPE_CHECKING

import click

from tradeback.cli.options import config_option

if TYPE_CHECKING:
    from tradeback.ops.components import Thresholds
    from tradeback.ops.level_file import LevelFile


def _components(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from tradeback.ops.components import ALL, COMPONENTS

    return [name for name in (ALL, *COMPONENTS) if name.startswith(incomplete.lower())]


def _levels(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from tradeback.ops.components import LEVELS

    return [name for name in LEVELS if name.startswith(incomplete.lower())]


@click.command(short_help="Log levels of a running engine, by component.")
@click.argument("component", required=False, shell_complete=_components)
@click.argument("level", required=False, shell_complete=_levels)
@click.option("--reset", is_flag=True, help="Back to the configuration: of COMPONENT, or of all.")
@config_option
@click.option("--data-dir", metavar="DIR", help="Data folder of the engine (DATA_DIR).")
def log_level(
    component: str | None, level: str | None, reset: bool, config_path: str | None, data_dir: str | None
) -> int:
    """Show the components of the log with their levels, or set the level of one; `all` is the others' level.

    All processes of a run (or edge) on this data folder take it up within a second, and keep it over restarts
    until it is reset. Levels: debug, info, warning, error. What is set here goes before log_level and
    log_levels of the configuration.

    \b
    Examples:
      tradeback log-level
      tradeback log-level line debug
      tradeback log-level all warning
      tradeback log-level line --reset
      tradeback log-level --reset
    """
    from tradeback import settings
    from tradeback.model.errors import TradebackError
    from tradeback.ops.components import Thresholds, check_component, check_level
    from tradeback.ops.level_file import LevelFile

    if (component is None or level is None) and (level is not None or (component is not None and not reset)):
        raise click.UsageError("name a level: debug, info, warning or error")
    if level is not None and reset:
        raise click.UsageError("set a level or reset it, not both")
    try:
        name = check_component(component) if component is not None else None
        wanted = check_level(level) if level is not None else None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    config = settings.load(config_path, os.environ, {"data_dir": data_dir})
    file = LevelFile(config.data_dir)
    try:
        held, wrong = file.read()
        if name is not None and wanted is not None:
            held[name] = wanted
        elif reset:
            held = {key: value for key, value in held.items() if name is not None and key != name}
        if reset or wanted is not None:
            file.write(held)
    except OSError as error:
        raise TradebackError(f"{file.path}: {error.strerror or error}; run it as the engine's user") from None
    for words in wrong:
        click.echo(f"{file.path}: {words}", err=True)
    thresholds = Thresholds()
    thresholds.configure(config.log_level, config.log_levels)
    thresholds.set_run_time(held)
    if reset or wanted is not None:
        _say(thresholds, name, file)
    else:
        _show(thresholds)
    return 0


def _say(thresholds: "Thresholds", name: str | None, file: "LevelFile") -> None:
    """What holds now."""
    if name is None:
        click.echo(f"levels are those of the configuration again ({file.path})")
        return
    found, where = thresholds.level(name)
    click.echo(f"{name}: {found}, by {where} ({file.path}); running processes take it up within a second")


def _show(thresholds: "Thresholds") -> None:
    """All components."""
    from tradeback.ops.components import ALL, COMPONENTS

    rows = {ALL: "every component without a level of its own", **COMPONENTS}
    for name, about in rows.items():
        found, where = thresholds.level(name)
        click.echo(f"{name:12}{found:9}{where:15}{about}")
