"""The `tradeback` command: finds the sub-command, imports only that one, and ends without a traceback.

Exit codes: 0 done (also after Ctrl-C of a command that runs until told to stop), 1 a failure while at work,
2 refused at start or wrong usage, 130 Ctrl-C in between.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from tradeback.version import VERSION

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "run": ("tradeback.cli.run:run", "Run the engine against the exchange."),
    "edge": ("tradeback.cli.edge:edge", "Serve another engine's tape, read from NATS."),
    "demo": ("tradeback.cli.demo:demo", "Simulator and engine together, with a live table."),
    "sim": ("tradeback.cli.sim:sim", "Run the simulated exchange."),
    "record": ("tradeback.cli.record:record", "Record raw frames of the exchange."),
    "replay": ("tradeback.cli.replay:replay", "Play a recording or a tape range through an engine."),
    "tail": ("tradeback.cli.tail:tail", "Follow symbols of a running engine in the terminal."),
    "tape": ("tradeback.cli.tape:tape", "Look at, verify and export a tape."),
    "user": ("tradeback.cli.user:user", "Users: add, list, passwd, disable, enable, allow, remove."),
    "migrate": ("tradeback.cli.migrate:migrate", "Bring the registry's tables to this version, or back."),
    "log-level": ("tradeback.cli.log_level:log_level", "Log levels of a running engine, by component."),
    "doctor": ("tradeback.cli.doctor:doctor", "Check configuration, machine, exchange and servers."),
    "completion": ("tradeback.cli.completion:completion", "Print the script for completion at Tab."),
}
"""Sub-command -> where it lives and its line in the help. Nothing is imported to print the list."""

UNTIL_STOPPED = {"run", "edge", "demo", "sim", "record", "replay", "tail"}
"""Commands for which Ctrl-C is the ordinary end: exit code 0."""

TRACEBACK_VARIABLE = "TRADEBACK_TRACEBACK"
"""Set to 1 to see where an error came from."""

COMPLETE_VARIABLE = "_TRADEBACK_COMPLETE"
"""Set by the scripts of `tradeback completion` when the shell asks what may come at Tab."""


class Commands(click.Group):
    """A group whose sub-commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one sub-command; None when there is no such name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        found: click.Command = getattr(import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands, from their one-line descriptions."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[Any]]":
        """The sub-commands, from the table: importing them all would make Tab slow."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items()]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [item for item in found if item.value.startswith(incomplete)] + options

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: Any, **extra: Any
    ) -> Any:
        """Run the command line and leave the process; see the module for the exit codes."""
        arguments = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False

        def call() -> Any:
            return super(Commands, self).main(arguments, prog_name, **extra)

        sys.exit(_offer(call) if os.environ.get(COMPLETE_VARIABLE) else run_guarded(call, arguments))


def _offer(call: Any) -> int:
    """Answer a shell that asks what may come. Whatever fails: no words between those that the user types."""
    try:
        call()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except (Exception, KeyboardInterrupt):  # a boundary: nothing is offered then
        if os.environ.get(TRACEBACK_VARIABLE) == "1":
            raise
    return 1


def run_guarded(call: Any, arguments: Sequence[str]) -> int:
    """Call, and turn whatever it raises into one line on stderr and an exit code."""
    try:
        result = call()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        command = next((word for word in arguments if not word.startswith("-")), "")
        return 0 if command in UNTIL_STOPPED else 130
    except BrokenPipeError:
        # `tradeback tail ... | head`: the reader has seen enough. Nothing may be flushed into the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # the last boundary before the user: he gets a line, not a traceback
        if os.environ.get(TRACEBACK_VARIABLE) == "1":
            raise
        return _report(error)


def _report(error: Exception) -> int:
    from tradeback.model.errors import TradebackError

    if isinstance(error, TradebackError):
        click.echo(f"tradeback: {error}", err=True)
        return int(getattr(error, "exit_code", 1))
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    click.echo(f"tradeback: internal error: {reason} ({TRACEBACK_VARIABLE}=1 shows where)", err=True)
    return 1


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="tradeback")
def main() -> None:
    """A low-latency crypto market-data engine that loses nothing.

    \b
    Start here, no exchange needed:  tradeback demo
    Against Binance:                 tradeback run
    Then, in a second terminal:      tradeback tail BTCUSDT
    """
