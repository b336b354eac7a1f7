"""Options that several commands share."""

import click

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(),
    metavar="FILE",
    help="YAML file; otherwise CONFIG_PATH, otherwise defaults.",
)
"""Where the configuration is; `settings.load` reads it, and says what is wrong with it."""
