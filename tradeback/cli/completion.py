"""`tradeback completion`: the script that makes a shell complete this command at Tab."""

import os
import sys
from typing import Final

import click

PROGRAM: Final = "tradeback"
VARIABLE: Final = "_TRADEBACK_COMPLETE"
SHELLS: Final = ("bash", "zsh", "fish")
HOW: Final = {
    "bash": (
        "bash 4.4 or newer. For every new shell, add this line to ~/.bashrc:",
        'eval "$(tradeback completion bash)"',
        "or, which starts shells faster, write it once where bash-completion looks:",
        "mkdir -p ~/.local/share/bash-completion/completions",
        "tradeback completion bash > ~/.local/share/bash-completion/completions/tradeback",
    ),
    "zsh": (
        "For every new shell, add this line to ~/.zshrc, behind compinit:",
        'eval "$(tradeback completion zsh)"',
        "or, which starts shells faster, write it once into a folder of $fpath:",
        "tradeback completion zsh > ~/.zfunc/_tradeback",
    ),
    "fish": (
        "Write it once where fish looks:",
        "tradeback completion fish > ~/.config/fish/completions/tradeback.fish",
    ),
}
"""What to do with the script: sentences, and what to type."""


@click.command(short_help="Print the script for completion at Tab: bash, zsh, fish.")
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print a script that completes commands, options, files, symbols and users at Tab.

    Without SHELL it is the one that you use ($SHELL). The script's first lines say where it goes. Symbols are
    those of the engine at --url, otherwise those of the registry under DATA_DIR.

    \b
    Examples:
      eval "$(tradeback completion bash)"
      tradeback completion zsh > ~/.zfunc/_tradeback
      tradeback completion fish > ~/.config/fish/completions/tradeback.fish
    """
    found = shell or os.path.basename(os.environ.get("SHELL", ""))
    if found not in SHELLS:
        raise click.UsageError(f"name your shell: one of {', '.join(SHELLS)}")
    click.echo(script(found))
    if sys.stdout.isatty():
        click.echo("The first lines of it say where it goes.", err=True)


def script(shell: str) -> str:
    """The script for a shell, with what to do with it. Asks no shell: it may be made for another machine."""
    from click.shell_completion import ShellComplete, get_completion_class

    from tradeback.cli.main import main

    kind = get_completion_class(shell)
    assert kind is not None, f"click knows {', '.join(SHELLS)}"
    # Not kind.source(): for bash that starts one to see its version.
    source = ShellComplete.source(kind(main, {}, PROGRAM, VARIABLE)).strip()
    # click's script for fish would end a description at its first comma.
    source = source.replace('string split ","', 'string split -m 1 ","')
    how = "\n".join(f"# {line}" for line in HOW[shell])
    head, newline, rest = source.partition("\n")
    if head.startswith("#compdef"):  # zsh reads it in the first line alone
        return f"{head}{newline}{how}\n{rest}"
    return f"{how}\n{source}"
