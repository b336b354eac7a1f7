"""cli.log_level: what it shows and writes, and what it refuses."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tradeback.cli import main as cli
from tradeback.ops.components import ALL, COMPONENTS
from tradeback.ops.level_file import LevelFile


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LOG_LEVEL", "LOG_LEVELS", "CONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["log-level", *arguments])


def held(tmp_path: Path) -> dict[str, str]:
    levels, wrong = LevelFile(tmp_path).read()
    assert wrong == []
    return levels


def test_it_sets_and_resets(tmp_path: Path) -> None:
    done = run("line", "debug")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("line: debug, by run time")
    assert held(tmp_path) == {"line": "debug"}
    assert run("ALL", "Warning").exit_code == 0
    assert held(tmp_path) == {"line": "debug", "all": "warning"}
    assert run("line", "--reset").output.startswith("line: warning, by run time")
    assert held(tmp_path) == {"all": "warning"}
    assert run("--reset").exit_code == 0
    assert held(tmp_path) == {}


def test_it_shows_every_component_with_its_level_and_where_that_is_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOG_LEVELS", "feed=error")
    run("line", "debug")
    rows = {line.split()[0]: line.split(None, 3)[1:] for line in run().output.splitlines()}
    assert set(rows) == {ALL, *COMPONENTS}
    assert rows["line"][:2] == ["debug", "run"]
    assert rows["line"][2].endswith("connections to the exchange")
    assert rows["feed"][:2] == ["error", "configuration"]
    assert rows["library"][:2] == ["warning", "default"]
    assert rows["gaps"][:2] == ["info", "configuration"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lines", "debug"), ("lines", "library, line,")),
        (("line", "loud"), ("loud", "debug, info, warning, error")),
        (("line",), ("name a level",)),
        (("line", "debug", "--reset"), ("not both",)),
    ],
)
def test_wrong_usage_is_2_and_names_what_is_known(
    tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert all(word in done.output for word in words), done.output
    assert held(tmp_path) == {}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("line", "debug", "--data-dir", str(tmp_path / "file"))
    assert done.exit_code == 1
    assert "engine's user" in done.output
