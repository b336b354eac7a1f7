"""ops.level_file: whole or not at all, readable by the engine, and a change is seen without a restart."""

import stat
from pathlib import Path

import pytest

from tests.exchange.harness import until
from tradeback.ops import level_file
from tradeback.ops.level_file import BYTES_MAX, LevelFile, LevelWatch


def test_it_reads_back_and_goes_when_nothing_is_set(tmp_path: Path) -> None:
    file = LevelFile(tmp_path / "new")
    assert file.read() == ({}, [])
    file.write({"line": "debug", "all": "error"})
    assert file.read() == ({"line": "debug", "all": "error"}, [])
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o644, (
        "only its owner changes it, the engine may read it"
    )
    assert [path.name for path in file.path.parent.iterdir()] == [level_file.NAME], "no remains"
    file.write({})
    assert not file.path.exists()
    file.write({})


def test_what_an_editor_left_is_told_and_the_rest_taken(tmp_path: Path) -> None:
    file = LevelFile(tmp_path)
    file.path.write_text("# mine\n line = debug \n\nnobody=info\nfeed=loud\nfeed\n")
    levels, wrong = file.read()
    assert levels == {"line": "debug"}
    assert len(wrong) == 3
    file.path.write_bytes(b"\xff\xfe" * 10 + b"x" * 10 * BYTES_MAX)
    assert file.read()[0] == {}


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, file = tmp_path / "victim", LevelFile(tmp_path)
    victim.write_text("mine")
    file.path.symlink_to(victim)
    file.write({"line": "debug"})
    assert victim.read_text() == "mine"
    assert not file.path.is_symlink()


async def test_changes_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(level_file, "LOOK_S", 0.005)
    file, seen, faults = LevelFile(tmp_path), list[dict[str, str]](), list[str]()
    watch = LevelWatch(file, seen.append, faults.append)
    watch.start()
    assert seen == []
    file.write({"line": "debug"})
    await until(lambda: seen == [{"line": "debug"}])
    file.write({"line": "info"})
    await until(lambda: len(seen) == 2)
    file.path.write_text("nobody=debug\n")
    await until(lambda: bool(faults))
    await until(lambda: seen[-1] == {})
    file.write({})
    await until(lambda: len(seen) == 4)
    watch.stop()
    assert seen == [{"line": "debug"}, {"line": "info"}, {}, {}]


def test_nothing_is_read_while_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, reads = LevelFile(tmp_path), list[str]()
    file.write({"line": "debug"})

    def read() -> tuple[dict[str, str], list[str]]:
        reads.append("read")
        return {}, []

    monkeypatch.setattr(file, "read", read)
    watch = LevelWatch(file, lambda levels: None, reads.append)
    for _ in range(5):
        watch.look()
    assert reads == ["read"]


def test_what_cannot_be_read_is_told_and_changes_nothing(tmp_path: Path) -> None:
    file, seen, faults = LevelFile(tmp_path), list[dict[str, str]](), list[str]()
    file.path.mkdir()
    LevelWatch(file, seen.append, faults.append).look()
    assert "log-levels" in faults[0]
    assert seen == []
