"""A file in the making, and what a kill leaves: everything up to the last flush."""

import gzip
import os
import random
from pathlib import Path

import pytest

from tests.recording.tools import A_TRADE, START_NS, trade
from tradeback.recording import part_file
from tradeback.recording.format import file_name, part_name
from tradeback.recording.part_file import PartFile, mend

NAME = file_name(A_TRADE, START_NS)


def content(first: int, count: int) -> bytes:
    return b"".join(b"%d %b\n" % (START_NS + n, trade(n)) for n in range(first, first + count))


def test_a_finished_file_is_plain_gzip(tmp_path: Path) -> None:
    file = PartFile(tmp_path, NAME, 3)
    for at in range(5):
        file.compress(content(100 * at, 100))
        file.flush()
        assert not (tmp_path / NAME).exists()
    file.finish()
    assert gzip.decompress((tmp_path / NAME).read_bytes()) == content(0, 500)
    assert file.disk_bytes == (tmp_path / NAME).stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_nothing_new_costs_nothing(tmp_path: Path) -> None:
    file = PartFile(tmp_path, NAME, 3)
    file.compress(content(0, 10))
    file.flush()
    size = file.disk_bytes
    for _ in range(100):
        file.flush()
    assert file.disk_bytes == size
    file.finish()


def test_a_kill_at_any_byte_keeps_what_was_flushed(tmp_path: Path) -> None:
    """Cut the file anywhere: after mending it holds all flushes before the cut, and whole lines only."""
    file = PartFile(tmp_path, NAME, 3)
    ends, held = [], []
    for at in range(4):
        file.compress(content(10 * at, 10))
        file.flush()
        ends.append(file.disk_bytes)
        held.append(content(0, 10 * at + 10))
    file.compress(content(40, 3_000))
    file.write()
    file.give_up()
    part = tmp_path / part_name(NAME)
    raw = part.read_bytes()
    cuts = {*ends, *(end - 1 for end in ends), *(end + 1 for end in ends), 0, 5, len(raw)}
    cuts |= set(random.Random(7).sample(range(len(raw)), 100))
    for cut in sorted(cuts):
        part.write_bytes(raw[:cut])
        (note,) = mend(tmp_path, START_NS)
        flushed = [data for end, data in zip(ends, held, strict=True) if end <= cut]
        if not flushed:
            assert "never flushed" in note
            assert list(tmp_path.iterdir()) == []
            continue
        lines, _, last = gzip.decompress((tmp_path / NAME).read_bytes()).rpartition(b"\n1781")
        assert lines + b"\n" == flushed[-1], cut
        assert b'#{"event":"end","why":"killed"}' in last
        assert [path.name for path in tmp_path.iterdir()] == [NAME]
        (tmp_path / NAME).unlink()


def test_a_kill_while_mending_leads_to_the_same_end(tmp_path: Path) -> None:
    file = PartFile(tmp_path, NAME, 3)
    file.compress(content(0, 100))
    file.flush()
    file.give_up()
    mend(tmp_path, START_NS)
    mended = (tmp_path / NAME).read_bytes()
    for cut in range(file.disk_bytes, len(mended) + 1):
        (tmp_path / part_name(NAME)).write_bytes(mended[:cut])
        mend(tmp_path, START_NS)
        assert (tmp_path / NAME).read_bytes() == mended


def test_bytes_that_look_like_a_flush_are_not_taken_for_one(tmp_path: Path) -> None:
    """Incompressible data is stored as it is, so a flush's four bytes can stand inside a block."""
    noise = random.Random(3).randbytes(20_000)
    data = noise + b"\x00\x00\xff\xff" + noise[::-1]
    file = PartFile(tmp_path, NAME, 1)
    file.compress(b"first\n")
    file.flush()
    file.compress(data)
    file.flush()
    file.give_up()
    part = tmp_path / part_name(NAME)
    raw = part.read_bytes()
    assert raw.count(part_file.FLUSHED) >= 3
    part.write_bytes(raw[:-100])
    mend(tmp_path, START_NS)
    assert gzip.decompress((tmp_path / NAME).read_bytes()).startswith(b"first\n1781")


def test_a_disk_that_refuses_gets_the_same_bytes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short writes and refusals at random: nothing doubled, nothing left out."""
    chance = random.Random(5)
    write = os.write

    def moody(descriptor: int, data: bytearray) -> int:
        if chance.random() < 0.4:
            raise OSError(28, "No space left on device")
        return write(descriptor, bytes(data[: chance.randrange(1, 300)]))

    file = PartFile(tmp_path, NAME, 3)
    monkeypatch.setattr(os, "write", moody)
    for at in range(30):
        file.compress(content(50 * at, 50))
        for act in (file.write, file.flush):
            while True:
                try:
                    act()
                    break
                except OSError:
                    continue
    while True:
        try:
            file.finish()
            break
        except OSError:
            continue
    assert gzip.decompress((tmp_path / NAME).read_bytes()) == content(0, 1_500)
