"""From the loop to the disk: frames are gathered per channel, a thread compresses and writes them.

The loop only appends to lists. A channel hands its list over when it is long enough, and at every flush.
Bound: when `buffer_bytes` of frames wait for the thread, what comes next is dropped, a list at a time,
until half of it is written; how many, and received when, is counted, logged, and marked in the file where
they are missing. The connection is not paused instead: then receive times would be wrong, and the
exchange would close it. When the disk refuses, the thread tries again and the frames wait within the bound.
"""

import asyncio
import base64
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tradeback.model.clock import Clock
from tradeback.model.limits import KIB, MIB
from tradeback.ops.log import Log
from tradeback.recording.format import BEGIN, DROPPED, END, ODD, Channel, file_name, mark
from tradeback.recording.part_file import PartFile

HAND_OVER_BYTES: Final = 64 * KIB
BUFFER_BYTES: Final = 64 * MIB
FLUSH_S: Final = 1.0
RETRY_S: Final = 0.5
PATIENCE_S: Final = 5.0
"""How long a disk that refuses may hold up the end."""
GZIP_LEVEL: Final = 4
"""See docs/recording.md for what the levels cost."""
STAMP_BYTES: Final = 21
"""A receive time, a space, a line end."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file ends and the next begins."""

    size_bytes: int = 64 * MIB
    """Compressed."""
    age_s: float = 3_600.0


@dataclass(slots=True)
class Counts:
    """What has been recorded. Frames and bytes as they came; `disk_bytes` compressed."""

    frames: int = 0
    frame_bytes: int = 0
    dropped: int = 0
    dropped_bytes: int = 0
    odd: int = 0
    """Messages that cannot stand on a line; in the file as marks."""
    disk_bytes: int = 0
    files: int = 0
    """Complete files."""


class Track:
    """One channel as the loop sees it. Made by `Writer.track`; loop thread only."""

    def __init__(self, writer: "Writer", channel: Channel, about: dict[str, Any]) -> None:
        self.channel, self.about = channel, about
        self._writer = writer
        self._parts: list[bytes] = []
        self._marks: list[bytes] = []
        self._frames = self._bytes = self._mark_bytes = 0
        self._lost_frames = self._lost_bytes = self._lost_from_ns = 0

    def take(self, stamp: bytes, payload: bytes) -> None:
        """Record one frame; `stamp` is its receive time in ns as text, with a space behind."""
        parts = self._parts
        parts += (stamp, payload, b"\n")
        self._frames += 1
        self._bytes += len(payload) + STAMP_BYTES
        if self._bytes >= HAND_OVER_BYTES:
            self.hand_over()

    def odd(self, time_ns: int, opcode: int, payload: bytes) -> None:
        """Record a message that cannot stand on a line."""
        self._writer.counts.odd += 1
        self.mark(time_ns, ODD, opcode=opcode, base64=base64.b64encode(payload).decode())

    def mark(self, time_ns: int, event: str, **fields: Any) -> None:
        """Put a mark between the frames. Marks are never dropped."""
        line = mark(time_ns, event, **fields)
        self._marks.append(line)
        self._parts.append(line)
        self._bytes += len(line)
        self._mark_bytes += len(line)

    def hand_over(self) -> None:
        """Give what has been gathered to the thread, or drop it when too much waits there."""
        if not self._parts and not self._lost_frames:
            return
        parts, marks, frames, size = self._parts, self._marks, self._frames, self._bytes
        payload_bytes = size - self._mark_bytes - frames * STAMP_BYTES
        self._parts, self._marks = [], []
        self._frames = self._bytes = self._mark_bytes = 0
        if self._writer.has_room(size):
            if self._lost_frames:
                parts.insert(0, self._dropped_mark())
            self._writer.put(self, parts, frames, size, payload_bytes)
            return
        if frames:
            self._drop(parts, frames, payload_bytes)
        # What happened to the connection is told in any case.
        self._parts, self._marks = list(marks), marks
        self._bytes = self._mark_bytes = sum(map(len, marks))

    def finish(self) -> None:
        """Hand over the rest; what was dropped at the end is marked whatever waits."""
        self.hand_over()
        if self._lost_frames:
            line = self._dropped_mark()
            self._writer.put(self, [line, *self._marks], 0, len(line) + self._mark_bytes, 0)
            self._parts, self._marks = [], []
            self._bytes = self._mark_bytes = 0

    def _drop(self, parts: list[bytes], frames: int, payload_bytes: int) -> None:
        if not self._lost_frames:
            self._lost_from_ns = int(next(part for part in parts if part[-1:] == b" "))
        self._lost_frames += frames
        self._lost_bytes += payload_bytes
        self._writer.note_dropped(self, frames, payload_bytes)

    def _dropped_mark(self) -> bytes:
        now_ns = self._writer.now_ns()
        line = mark(
            now_ns, DROPPED, frames=self._lost_frames, bytes=self._lost_bytes,
            from_ns=self._lost_from_ns, to_ns=now_ns,
        )  # fmt: skip
        self._lost_frames = self._lost_bytes = 0
        return line


@dataclass(slots=True)
class _Piece:
    """What a track hands over: joined it is whole lines, `frames` of them frames."""

    track: Track
    parts: list[bytes]
    frames: int
    size: int


class _Open:
    """A track's file, in the thread."""

    def __init__(self, file: PartFile, begun_ns: int) -> None:
        self.file, self.begun_ns = file, begun_ns
        self.frames = 0


class Writer:
    """Owned by the recorder: `track` for each connection, `start`, in the end `await close()`."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        log: Log,
        *,
        rotation: Rotation | None = None,
        buffer_bytes: int = BUFFER_BYTES,
        flush_s: float = FLUSH_S,
        level: int = GZIP_LEVEL,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.folder = folder
        self.counts = Counts()
        self.trouble: str | None = None
        """Why the disk refuses; None while it takes what comes."""
        self._clock, self._log = clock, log
        self._rotation = rotation or Rotation()
        self._buffer_bytes, self._flush_s, self._level = buffer_bytes, flush_s, level
        self._patience_s, self._give_up_s = patience_s, 0.0
        self._tracks: list[Track] = []
        self._open: dict[Track, _Open] = {}
        self._queue: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._put_bytes = self._done_bytes = 0
        """One is the loop's, the other the thread's: no lock is needed."""
        self._dropping = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="recording-writer", daemon=True)
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finished_bytes = 0
        self.incomplete = 0
        """Files that the disk did not let us complete."""

    # The loop's side.

    def track(self, channel: Channel, **about: Any) -> Track:
        """A channel to record; `about` goes into the first line of its files."""
        track = Track(self, channel, about)
        self._tracks.append(track)
        return track

    def start(self) -> None:
        """Begin to write. Needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._tick()

    async def close(self) -> None:
        """Write everything, complete all files, end the thread. What the disk refuses now is counted lost."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._thread.is_alive():
            return
        for track in self._tracks:
            track.finish()
        self._give_up_s = time.monotonic() + self._patience_s
        self._closing.set()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def now_ns(self) -> int:
        """The wall clock."""
        return self._clock.wall_ns()

    @property
    def waiting_bytes(self) -> int:
        """Bytes of frames that have not reached the disk's file yet."""
        return self._put_bytes - self._done_bytes

    def has_room(self, size: int) -> bool:
        """Whether `size` bytes more may wait for the thread."""
        limit = self._buffer_bytes // 2 if self._dropping else self._buffer_bytes
        if self.waiting_bytes + size > limit:
            return False
        if self._dropping:
            self._dropping = False
            self._log.warning("frames are written again", dropped_frames=self.counts.dropped)
        return True

    def put(self, track: Track, parts: list[bytes], frames: int, size: int, payload_bytes: int) -> None:
        """Hand lines to the thread."""
        self._put_bytes += size
        self.counts.frames += frames
        self.counts.frame_bytes += payload_bytes
        self._queue.put(_Piece(track, parts, frames, size))

    def note_dropped(self, track: Track, frames: int, size: int) -> None:
        """Count, and say so when it begins."""
        self.counts.dropped += frames
        self.counts.dropped_bytes += size
        if not self._dropping:
            self._dropping = True
            self._log.error(
                "frames are dropped: the disk or the processor is too slow",
                line=track.channel.name, waiting_bytes=self.waiting_bytes, disk=self.trouble,
            )  # fmt: skip

    def _tick(self) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(self._flush_s, self._tick)
        for track in self._tracks:
            track.hand_over()
        if self._queue.empty() or self.waiting_bytes <= self._buffer_bytes // 2:
            self._queue.put(None)

    # The thread's side.

    def _work(self) -> None:
        """Until `close`: None in the queue asks for a flush."""
        while True:
            piece = self._queue.get()
            if piece is not None:
                self._store(piece)
            elif self._closing.is_set() and self._queue.empty():
                self._end_all()
                return
            else:
                self._flush_all()

    def _store(self, piece: _Piece) -> None:
        data = b"".join(piece.parts)
        frames = piece.frames
        if data.count(b"\n") != self._lines(piece):
            data, frames = _without_breaks(piece.parts)
            self.counts.odd += piece.frames - frames
        opened = self._file_of(piece.track)
        if opened is not None:
            opened.file.compress(data)
            opened.frames += frames
            self._persist(opened.file.write)
            self._roll_if_due(piece.track, opened)
        elif piece.frames:
            self.counts.dropped += piece.frames
        self._done_bytes += piece.size

    @staticmethod
    def _lines(piece: _Piece) -> int:
        """Lines that the piece must have: three parts make a frame, the others are marks."""
        return len(piece.parts) - 2 * piece.frames

    def _file_of(self, track: Track) -> _Open | None:
        """The track's file, begun if there is none; None when the disk refuses it to the very end."""
        held = self._open.get(track)
        if held is not None:
            return held
        now_ns = self._clock.wall_ns()
        name = file_name(track.channel, now_ns)
        made: list[PartFile] = []
        self._persist(lambda: made.append(PartFile(self.folder, name, self._level)))
        if not made:
            return None
        channel = track.channel
        made[0].compress(
            mark(
                now_ns, BEGIN, line="ab"[channel.line], stream=channel.stream, shard=channel.shard,
                **track.about,
            )
        )  # fmt: skip
        self._open[track] = opened = _Open(made[0], now_ns)
        return opened

    def _roll_if_due(self, track: Track, opened: _Open) -> None:
        aged = self._clock.wall_ns() - opened.begun_ns >= self._rotation.age_s * 1e9
        if aged or opened.file.bytes_made >= self._rotation.size_bytes:
            self._finish(track, "rotated")

    def _flush_all(self) -> None:
        for track, opened in list(self._open.items()):
            self._persist(opened.file.flush)
            self._roll_if_due(track, opened)
        self._count_disk()

    def _end_all(self) -> None:
        for track in list(self._open):
            self._finish(track, "stopped")
        self._count_disk()

    def _finish(self, track: Track, why: str) -> None:
        opened = self._open.pop(track)
        opened.file.compress(mark(self._clock.wall_ns(), END, why=why, frames=opened.frames))
        if self._persist(opened.file.finish):
            self.counts.files += 1
        else:
            opened.file.give_up()
            self.incomplete += 1
        self._finished_bytes += opened.file.disk_bytes

    def _count_disk(self) -> None:
        held = sum(opened.file.disk_bytes for opened in self._open.values())
        self.counts.disk_bytes = self._finished_bytes + held

    def _persist(self, act: Callable[[], object]) -> bool:
        """Do it, again and again while the disk refuses; False when the recorder is closing meanwhile."""
        while True:
            try:
                act()
            except OSError as error:
                if self.trouble is None:
                    self._tell("the disk refuses the recording; trying again", str(error))
                self.trouble = str(error)
                if self._closing.is_set() and time.monotonic() > self._give_up_s:
                    return False
                time.sleep(RETRY_S)
            else:
                if self.trouble is not None:
                    self.trouble = None
                    self._tell("the disk takes the recording again", None)
                return True

    def _tell(self, event: str, error: str | None) -> None:
        """Log from the loop: the thread has no business with handlers."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(lambda: self._log.warning(event, error=error))


def _without_breaks(parts: list[bytes]) -> tuple[bytes, int]:
    """Lines in which a frame with a line break has become a mark, and how many frames are left."""
    lines, frames = [], 0
    rest = iter(parts)
    for part in rest:
        if part[-1:] != b" ":
            lines.append(part)
            continue
        payload, end = next(rest), next(rest)
        if b"\n" in payload:
            lines.append(mark(int(part), ODD, opcode=1, base64=base64.b64encode(payload).decode()))
        else:
            lines.append(part + payload + end)
            frames += 1
    return b"".join(lines), frames
