"""cli.main: what is imported, how it helps, and how it ends."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from tests.cli.running import refused, tradeback
from tradeback.cli import main as cli
from tradeback.model.errors import ConfigError, TapeError
from tradeback.version import VERSION

HEAVY = ("numba", "numpy", "aiohttp", "picows", "msgspec", "yaml", "rich", "structlog", "asyncio")


def test_help_imports_nothing_heavy() -> None:
    """`tradeback --help` answers at once: it only reads a table."""
    script = "import sys\nfrom tradeback.cli.main import main\ntry:\n    main(['--help'])\n"
    script += "except SystemExit:\n    print(*sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "demo" in done.stdout
    assert set(done.stderr.split()) & set(HEAVY) == set()


def tree(context: click.Context) -> Iterator[click.Context]:
    """A command with all that are below it."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            yield from tree(click.Context(command, context, name))


EVERY = [each for each in tree(click.Context(cli.main, info_name="tradeback")) if each.parent]
"""All commands and sub-commands."""


@pytest.mark.parametrize("context", EVERY, ids=lambda each: each.command_path)
def test_every_command_shows_an_example_that_it_understands(context: click.Context) -> None:
    shown = context.command.get_help(context)
    assert "Example" in shown
    examples = [line.strip() for line in shown.partition("Example")[2].splitlines()[1:] if line.strip()]
    mine = [line for line in examples if f"{context.command_path} " in f"{line} "]
    assert mine, "an example of the command itself"
    if isinstance(context.command, click.Group):
        return
    for line in mine:
        # Up to a second blank, which sets off what is said of it, or to what is the shell's own.
        own = re.split(r'  |\)"| [|>]', line[line.index(context.command_path) :])[0]
        arguments = shlex.split(own)[len(context.command_path.split()) :]
        parser = context.command.make_parser(click.Context(context.command))
        parser.parse_args(arguments)


def test_the_list_says_what_each_command_says() -> None:
    context = click.Context(cli.main)
    for name in cli.COMMANDS:
        command = cli.main.get_command(context, name)
        assert command is not None
        assert command.name == name


def test_version() -> None:
    done = tradeback("--version")
    assert (done.returncode, done.stdout) == (0, f"tradeback, version {VERSION}\n")


def test_wrong_usage_is_2() -> None:
    done = tradeback("runn")
    assert done.returncode == 2
    assert "No such command 'runn'" in done.stderr


def raising(error: BaseException) -> int:
    def call() -> None:
        raise error

    return cli.run_guarded(call, ["run", "--port", "0"])


def test_refusals_are_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(ConfigError("feed.lag_max: no")) == 2
    assert capsys.readouterr().err == "tradeback: feed.lag_max: no\n"


def test_failures_at_work_are_one_line_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(TapeError("the disk is full")) == 1
    assert capsys.readouterr().err == "tradeback: the disk is full\n"


def test_what_nobody_expected_is_one_line_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(KeyError("x")) == 1
    assert capsys.readouterr().err == (
        "tradeback: internal error: KeyError: 'x' (TRADEBACK_TRACEBACK=1 shows where)\n"
    )


def test_a_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cli.TRACEBACK_VARIABLE, "1")
    with pytest.raises(KeyError):
        raising(KeyError("x"))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["run"], 0),
        (["demo", "--for", "1s"], 0),
        (["tail", "BTCUSDT"], 0),
        (["sim"], 0),
        (["tape", "verify"], 130),
    ],
)
def test_control_c(words: list[str], code: int) -> None:
    def call() -> None:
        raise KeyboardInterrupt

    assert cli.run_guarded(call, words) == code


def test_a_command_may_return_its_exit_code() -> None:
    assert cli.run_guarded(lambda: 1, ["doctor"]) == 1
    assert cli.run_guarded(lambda: None, ["doctor"]) == 0


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    script = "import sys\nfrom tradeback.cli.main import run_guarded\n"
    script += "def call():\n    while True:\n        sys.stdout.write('x' * 4096)\n"
    script += "sys.exit(run_guarded(call, ['tail']))"
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.read(1)
    writer.stdout.close()
    assert writer.stderr is not None
    assert writer.stderr.read() == b""
    writer.stderr.close()
    assert writer.wait(30) == 0


def test_completion_knows_the_commands() -> None:
    done = tradeback(
        variables={"_TRADEBACK_COMPLETE": "bash_complete", "COMP_WORDS": "tradeback d", "COMP_CWORD": "1"}
    )
    assert done.stdout.split() == ["plain,demo", "plain,doctor"]


def test_bad_configuration_is_refused_through_the_command(tmp_path: object) -> None:
    line = refused(tradeback("run", variables={"FEED_LAG_MAX": "10"}))
    assert "feed.lag_max" in line
    assert "15s" in line
    line = refused(tradeback("run", "--config", f"{tmp_path}/none.yaml"))
    assert "none.yaml: No such file" in line
    line = refused(tradeback("run", "--port", "http"))
    assert "option --port: server.port" in line
