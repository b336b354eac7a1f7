"""cli.completion: the scripts, and one of them at work in bash."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tradeback.cli.completion import SHELLS, completion, script


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_says_where_it_goes_and_is_one(shell: str) -> None:
    found = script(shell)
    assert f"tradeback completion {shell}" in found
    assert f"{shell}_complete" in found
    if shell == "zsh":
        assert found.startswith("#compdef tradeback\n"), "zsh reads it in the first line alone"
    program = shutil.which(shell)
    if program is None:
        return
    done = subprocess.run([program, "-n"], input=found, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_descriptions_in_fish_are_whole() -> None:
    """It hands over `kind,name<Tab>description`: only the first comma parts anything."""
    assert 'string split -m 1 ","' in script("fish")


def test_the_users_own_shell() -> None:
    runner = CliRunner(env={"SHELL": "/usr/bin/fish"})
    assert runner.invoke(completion, []).output == script("fish") + "\n"
    refused = CliRunner(env={"SHELL": "/bin/sh"}).invoke(completion, [])
    assert (refused.exit_code, "bash, zsh, fish" in refused.output) == (2, True)
    assert CliRunner().invoke(completion, ["tcsh"]).exit_code == 2


def test_no_shell_is_asked_for_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "complete -o nosort -F" in script("bash")


def test_bash_completes_with_it(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        if os.environ.get("CI"):
            pytest.fail("bash is not installed")
        pytest.skip("bash is not installed")
    command = tmp_path / "tradeback"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tradeback "$@"\n')
    command.chmod(0o755)
    script_of = """
        eval "$(tradeback completion bash)"
        complete -p tradeback
        COMP_WORDS=(tradeback tape exp); COMP_CWORD=2
        _tradeback_completion tradeback exp tape
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        [bash, "--norc", "-c", script_of],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    registered, offered = done.stdout.splitlines()
    assert registered.endswith("-F _tradeback_completion tradeback")
    assert offered == "export"
