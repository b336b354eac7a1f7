"""Reading back: our files in every state, and those of others."""

import gzip
from pathlib import Path

import pytest

from tests.recording.tools import A_TRADE, B_TRADE, START_NS, trade
from tradeback.model.errors import StartupError
from tradeback.recording.format import file_name, mark
from tradeback.recording.part_file import PartFile
from tradeback.recording.reading import is_mark, list_sources, read_lines
from tradeback.sim.recording_files import read_file


def line(number: int) -> bytes:
    return b"%d %b\n" % (START_NS + number, trade(number))


def test_files_of_a_channel_follow_each_other_and_the_last_may_be_open(tmp_path: Path) -> None:
    for at in range(3):
        name = file_name(A_TRADE, START_NS + at)
        file = PartFile(tmp_path, name, 3)
        file.compress(line(2 * at) + line(2 * at + 1))
        file.flush() if at == 2 else file.finish()
    other = PartFile(tmp_path, file_name(B_TRADE, START_NS), 3)
    other.compress(line(100))
    other.finish()
    (tmp_path / "symbols.json").write_text("[]")
    a, b = list_sources(tmp_path)
    assert (a.name, a.line, len(a.files), b.name, b.line) == ("a:trade:0", 0, 3, "b:trade:0", 1)
    assert [found.recv_ns - START_NS for found in read_lines(a)] == list(range(6))
    assert [found.body for found in read_lines(a)] == [trade(number) for number in range(6)]
    assert [found.recv_ns - START_NS for found in read_lines(b)] == [100]
    assert [source.name for source in list_sources(tmp_path, "*-b-*")] == ["b:trade:0"]


def test_files_that_are_completed_while_they_are_read(tmp_path: Path) -> None:
    """Listed while in the making: one gets its own name meanwhile, one was empty and goes."""
    empty, full = (PartFile(tmp_path, file_name(A_TRADE, START_NS + at), 3) for at in range(2))
    full.compress(line(1))
    full.flush()
    (source,) = list_sources(tmp_path)
    full.finish()
    empty.give_up()
    source.files[0].unlink()
    assert [found.recv_ns - START_NS for found in read_lines(source)] == [1]


def test_a_torn_file_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    file = PartFile(tmp_path, file_name(A_TRADE, START_NS), 3)
    file.compress(b"".join(map(line, range(50))))
    file.flush()
    file.compress(b"".join(map(line, range(50, 5_000))))
    file.write()
    file.give_up()
    (source,) = list_sources(tmp_path)
    found = [each.recv_ns - START_NS for each in read_lines(source)]
    assert len(found) >= 50
    assert found == list(range(len(found)))


def test_everything_that_was_recorded_comes_back_marks_included(tmp_path: Path) -> None:
    bodies = [b'{"result":null,"id":1}', trade(1), b"no json at all", b"{}"]
    name = file_name(A_TRADE, START_NS)
    (tmp_path / name).write_bytes(
        gzip.compress(b"".join(b"%d %b\n" % (START_NS, body) for body in bodies) + mark(START_NS, "lost"))
    )
    (source,) = list_sources(tmp_path)
    found = list(read_lines(source))
    assert [each.body for each in found[:4]] == bodies
    assert [is_mark(each) for each in found] == [False] * 4 + [True]


def test_files_of_others_give_the_frames_that_the_simulator_reads(shared_folder: Path) -> None:
    for file in sorted((shared_folder / "data/binance/spot_ws").glob("*.gz")):
        (source,) = list_sources(file)
        assert not source.ours
        ours = [(found.recv_ns, found.body) for found in read_lines(source)]
        theirs = [
            (frame.recv_ns, b'{"stream":"%b","data":%b}' % (frame.stream.encode(), frame.payload))
            for frame in read_file(file)
        ]
        assert ours == theirs


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="tradeback record -o"):
        list_sources(tmp_path)
    with pytest.raises(StartupError, match="no folder or file"):
        list_sources(tmp_path / "nowhere")
