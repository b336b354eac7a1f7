"""The writer: what was taken is in the files, in order; what is not, is counted and marked."""

import asyncio
import base64
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.exchange.harness import Logbook, until
from tests.recording.tools import A_TRADE, B_TRADE, START_NS, events, frames, marks, take, trade, writing
from tradeback.recording.format import part_name
from tradeback.recording.part_file import PartFile
from tradeback.recording.reading import list_sources, read_lines
from tradeback.recording.writer import HAND_OVER_BYTES, Rotation


async def test_frames_come_back_as_they_came(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        track = writer.track(A_TRADE, endpoint="here:1")
        track.mark(START_NS, "connected", streams=1)
        take(track, range(5_000))
        track.mark(START_NS, "lost", reason="cut")
    found = frames(tmp_path)
    assert [line.body for line in found] == [trade(number) for number in range(5_000)]
    assert [line.recv_ns for line in found] == [START_NS + 1_000 * number for number in range(5_000)]
    assert events(tmp_path) == ["begin", "connected", "lost", "end"]
    begin, *_, end = marks(tmp_path)
    assert begin == {"event": "begin", "line": "a", "stream": "trade", "shard": 0, "endpoint": "here:1"}
    assert end == {"event": "end", "why": "stopped", "frames": 5_000}
    counts = writer.counts
    assert (counts.frames, counts.files, counts.dropped, counts.odd) == (5_000, 1, 0, 0)
    assert counts.frame_bytes == sum(len(trade(number)) for number in range(5_000))
    assert counts.disk_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


async def test_each_channel_has_its_files(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        tracks = [writer.track(channel) for channel in (A_TRADE, B_TRADE)]
        for at, track in enumerate(tracks):
            take(track, range(1_000 * at, 1_000 * at + 1_000))
    for at, source in enumerate(list_sources(tmp_path)):
        bodies = [line.body for line in read_lines(source) if line.body.startswith(b"{")]
        assert bodies == [trade(number) for number in range(1_000 * at, 1_000 * at + 1_000)]


async def test_what_was_flushed_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        track = writer.track(A_TRADE)
        take(track, range(10))
        await until(lambda: list(tmp_path.iterdir()) and len(frames(tmp_path)) == 10)
        assert all(path.name.endswith(".part") for path in tmp_path.iterdir())
        take(track, range(10, 20))
        await until(lambda: len(frames(tmp_path)) == 20)


@pytest.mark.parametrize("rotation", [Rotation(size_bytes=4_000), Rotation(age_s=0.02)], ids=["size", "age"])
async def test_rotation_loses_nothing(tmp_path: Path, rotation: Rotation) -> None:
    async with writing(tmp_path, rotation=rotation) as writer:
        track = writer.track(A_TRADE)
        for start in range(0, 20_000, 1_000):
            take(track, range(start, start + 1_000))
            await asyncio.sleep(0.01)
    (source,) = list_sources(tmp_path)
    assert len(source.files) == writer.counts.files > 3
    assert [line.body for line in frames(tmp_path)] == [trade(number) for number in range(20_000)]
    endings = [fields["why"] for fields in marks(tmp_path) if fields["event"] == "end"]
    assert len(endings) == len(source.files)
    assert set(endings[:-1]) == {"rotated"}


class Gate:
    """A disk that refuses while it is shut."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.refused = 0
        write: Callable[[PartFile], None] = PartFile.write

        def guarded(file: PartFile) -> None:
            if not self.open.is_set():
                self.refused += 1
                raise OSError(28, os.strerror(28))
            write(file)

        monkeypatch.setattr(PartFile, "write", guarded)
        monkeypatch.setattr("tradeback.recording.writer.RETRY_S", 0.005)


async def test_at_the_bound_frames_are_dropped_counted_logged_and_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, log = Gate(monkeypatch), Logbook()
    bound = 4 * HAND_OVER_BYTES
    async with writing(tmp_path, log, buffer_bytes=bound) as writer:
        track = writer.track(A_TRADE)
        track.mark(START_NS, "connected")
        total = 10_000
        take(track, range(total))
        track.mark(START_NS, "lost")
        assert writer.waiting_bytes <= bound
        assert writer.counts.dropped > 0
        await until(lambda: writer.trouble is not None and gate.refused)
        gate.open.set()
        await until(lambda: writer.waiting_bytes == 0)
        take(track, range(total, total + 10))
    found = [int(line.recv_ns - START_NS) // 1_000 for line in frames(tmp_path)]
    (dropped,) = [fields for fields in marks(tmp_path) if fields["event"] == "dropped"]
    missing = sorted(set(range(total + 10)) - set(found))
    assert found == sorted(found)
    assert len(missing) == dropped["frames"] == writer.counts.dropped
    assert dropped["bytes"] == sum(len(trade(number)) for number in missing)
    assert dropped["from_ns"] == START_NS + 1_000 * missing[0]
    assert missing == list(range(missing[0], missing[-1] + 1)), "one stretch"
    assert events(tmp_path) == ["begin", "connected", "dropped", "lost", "end"], "marks are never dropped"
    assert len(log.of("frames are dropped")) == 1
    assert len(log.of("frames are written again")) == 1
    assert log.of("the disk refuses")
    assert log.of("the disk takes")


async def test_what_is_dropped_at_the_very_end_is_marked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    async with writing(tmp_path, buffer_bytes=2 * HAND_OVER_BYTES) as writer:
        track = writer.track(A_TRADE)
        take(track, range(3_000))
        dropped = writer.counts.dropped
        assert dropped
        closing = asyncio.create_task(writer.close())
        await asyncio.sleep(0)
        gate.open.set()
        await closing
    assert [fields["frames"] for fields in marks(tmp_path) if fields["event"] == "dropped"] == [
        writer.counts.dropped
    ]
    assert len(frames(tmp_path)) + writer.counts.dropped == 3_000


async def test_a_disk_that_never_takes_anything_does_not_hold_the_end_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gate(monkeypatch)
    async with writing(tmp_path, patience_s=0.02) as writer:
        take(writer.track(A_TRADE), range(10))
    assert writer.incomplete == 1
    assert writer.trouble is not None


async def test_messages_that_cannot_stand_on_a_line_are_kept_in_marks(tmp_path: Path) -> None:
    broken = b'{"stream":"x",\n"data":{}}'
    async with writing(tmp_path) as writer:
        track = writer.track(A_TRADE)
        take(track, [1])
        track.mark(START_NS, "connected")
        track.take(b"%d " % (START_NS + 7), broken)
        take(track, [2])
        track.odd(START_NS + 9, 0x82, b"\x00binary")
    assert [line.body for line in frames(tmp_path)] == [trade(1), trade(2)]
    odd = [fields for fields in marks(tmp_path) if fields["event"] == "odd"]
    assert [base64.b64decode(fields["base64"]) for fields in odd] == [broken, b"\x00binary"]
    assert writer.counts.odd == 2


async def test_a_file_that_cannot_be_made_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tradeback.recording.writer.RETRY_S", 0.005)
    folder = tmp_path / "later"
    async with writing(folder) as writer:
        take(writer.track(A_TRADE), range(10))
        await until(lambda: writer.trouble is not None)
        folder.mkdir()
        await until(lambda: writer.counts.disk_bytes > 0)
    assert len(frames(folder)) == 10
    assert not any(path.name == part_name(path.name) for path in folder.iterdir())
