"""cli.complete: what Tab offers, and that it is quiet about everything that fails."""

from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from tests.api.access_world import guarded, token_of
from tests.cli.running import tradeback
from tests.stores.accounts_world import record
from tradeback.cli import complete
from tradeback.cli.main import COMMANDS, COMPLETE_VARIABLE, main
from tradeback.cli.tail import tail
from tradeback.model.config import AuthConfig
from tradeback.ops.clock import SystemClock
from tradeback.stores.registry_sqlite import RegistrySqlite
from tradeback.stores.users import Passwords, Users


def offered(*words: str) -> list[str]:
    """What comes for the last of these words."""
    comp = BashComplete(main, {}, "tradeback", COMPLETE_VARIABLE)
    return [str(item.value) for item in comp.get_completions(list(words[:-1]), words[-1])]


def kinds(*words: str) -> list[str]:
    comp = BashComplete(main, {}, "tradeback", COMPLETE_VARIABLE)
    return [item.type for item in comp.get_completions(list(words[:-1]), words[-1])]


def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that is asked by default is nobody's, though a demo may be running on this machine."""
    (url,) = [option for option in tail.params if option.name == "url"]
    monkeypatch.setattr(url, "default", "http://127.0.0.1:1")
    monkeypatch.setattr(complete, "URL", "http://127.0.0.1:1")


@pytest.fixture
async def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with three symbols and a user, and no engine."""
    held = RegistrySqlite(tmp_path / "registry.sqlite")
    held.assign([record("BTCUSDT"), record("BTCEUR"), record("ETHUSDT")])
    await Users(held, SystemClock(), Passwords(memory_kib=64)).add("alice", "correct-horse-battery")
    held.close()
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    nobody_answers(monkeypatch)
    return tmp_path


def test_commands_without_importing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(context: object, name: str) -> None:
        raise AssertionError("imported")

    monkeypatch.setattr(main, "get_command", refuse)
    assert offered("") == list(COMMANDS)
    assert offered("ta") == ["tail", "tape"]


def test_options_and_their_choices() -> None:
    assert "--board" in offered("tail", "--")
    assert offered("tape", "export", "--format", "p") == ["parquet"]
    assert offered("tape", "export", "--kind", "tr") == ["trade"]
    assert offered("migrate", "up", "--to", "") == ["base", "0001", "0002", "0003"]
    assert offered("completion", "z") == ["zsh"]


@pytest.mark.parametrize(
    "words",
    [("run", "--config", ""), ("doctor", "--config", ""), ("replay", ""), ("tail", "X", "--token-file", "")],
)
def test_files(words: tuple[str, ...]) -> None:
    assert kinds(*words) == ["file"]


def test_symbols_of_the_registry(registry: Path) -> None:
    assert offered("tail", "bt") == ["BTCEUR", "BTCUSDT"]
    assert offered("tail", "BTCUSDT", "") == ["BTCEUR", "ETHUSDT"]
    assert offered("tape", "export", "--symbol", "E") == ["ETHUSDT"]
    assert offered("record", "--symbols", "BTCUSDT,e") == ["BTCUSDT,ETHUSDT"]
    assert offered("replay", ".", "--symbols", "b") == ["BTCEUR", "BTCUSDT"]
    assert offered("user", "passwd", "al") == ["alice"]
    assert offered("user", "allow", "alice", "ETHUSDT,BTCU") == ["ETHUSDT,BTCUSDT"]


async def test_symbols_of_an_engine_that_wants_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    monkeypatch.setenv("DATA_DIR", str(tmp_path / "none"))
    async with guarded(tmp_path, auth=AuthConfig(mode="required")) as world:
        await world.user()
        words = ("tail", "--url", world.url, "BTC")
        assert await asyncio.to_thread(offered, *words) == []
        monkeypatch.setenv("TRADEBACK_TOKEN", token_of(await world.logged_in()))
        assert "BTCUSDT" in await asyncio.to_thread(offered, *words)


def test_nothing_is_made_and_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_answers(monkeypatch)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert offered("tail", "B") == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "registry.sqlite").write_text("no database")
    assert offered("tail", "B") == []
    assert offered("tail", "--url", "file:///etc/passwd", "B") == []
    variables = {COMPLETE_VARIABLE: "bash_complete", "COMP_WORDS": "tradeback tail 'B", "COMP_CWORD": "x"}
    done = tradeback(variables=variables)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
