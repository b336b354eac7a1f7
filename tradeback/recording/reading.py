"""Reading recordings back: ours, finished or in the making, and those of others that the simulator plays.

A file that ends in the middle (a killed recorder, one at work) is read up to its last whole line.
"""

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tradeback.model.errors import StartupError
from tradeback.recording.format import MARK, PART_SUFFIX, Channel, channel_of
from tradeback.recording.part_file import GZIP_BITS
from tradeback.sim.recording_files import to_ns

_CHUNK = 1 << 18
_GZIP_MAGIC = b"\x1f\x8b"
_NS_DIGITS = 19
_EVENT = b'{"stream":"'


class Line(NamedTuple):
    """One line: receive time in ns, and a frame or (`body` begins with #) a mark."""

    recv_ns: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one connection, in order of time."""

    name: str
    line: int
    """0 A, 1 B; 0 for recordings of others."""
    files: tuple[Path, ...]
    ours: bool
    """Made by `tradeback record`: every body is a frame or a mark."""


def list_sources(path: Path, pattern: str = "*") -> list[Source]:
    """The connections of a recording: a folder of which `pattern` picks files, or one file.

    Files of others are a source each. Raises StartupError when there are none.
    """
    if path.is_file():
        files = [path]
    elif path.is_dir():
        # `*` means what it means to a shell, but for files in the making, which are named by a dot.
        found = {*path.glob(pattern), *path.glob(f".{pattern}{PART_SUFFIX}")}
        files = sorted(file for file in found if file.is_file() and _is_recording(file))
    else:
        raise StartupError(f"{path} is no folder or file: give a folder that `tradeback record` has made")
    sources: dict[Channel, list[Path]] = {}
    others = []
    for file in files:
        channel = channel_of(file.name)
        if channel is None:
            others.append(Source(file.name, 0, (file,), ours=False))
        else:
            sources.setdefault(channel, []).append(file)
    ours = [
        Source(channel.name, channel.line, tuple(sorted(held, key=_begun)), ours=True)
        for channel, held in sorted(sources.items())
    ]
    if not ours and not others:
        raise StartupError(f"{path} holds no recording: `tradeback record -o {path}` makes one")
    return ours + others


def _begun(file: Path) -> str:
    return file.name.removeprefix(".")


def _is_recording(file: Path) -> bool:
    return channel_of(file.name) is not None or not (file.name.startswith(".") or file.suffix == ".json")


def read_lines(source: Source) -> Iterator[Line]:
    """All lines of a source that hold a frame or a mark, in the order of its files."""
    for file in source.files:
        for raw in _lines(file):
            time, _, body = raw.partition(b" ")
            if not source.ours:
                body = body.rstrip(b"\r")
                if not body.startswith(_EVENT):
                    continue
            elif not body:
                continue
            recv_ns = int(time) if len(time) == _NS_DIGITS and time.isdigit() else to_ns(time)
            if recv_ns is not None:
                yield Line(recv_ns, body)


def is_mark(line: Line) -> bool:
    """Is it no frame?"""
    return line.body.startswith(MARK)


def _lines(file: Path) -> Iterator[bytes]:
    """Whole lines without their ends; of a file that ends in the middle, those before."""
    rest = b""
    for data in _plain(file):
        pieces = (rest + data).split(b"\n")
        rest = pieces.pop()
        yield from pieces
    # A last line without an end is whole in a plain file of others, and torn in one of ours.
    if rest and channel_of(file.name) is None:
        yield rest


def _open(file: Path) -> BinaryIO:
    """A file of a recording that may still be growing: completed since it was listed, it has lost its dot.

    One that was empty is gone then, and reads as empty.
    """
    try:
        return file.open("rb")
    except FileNotFoundError:
        if not file.name.endswith(PART_SUFFIX):
            raise
    whole = file.with_name(file.name[1 : -len(PART_SUFFIX)])
    return whole.open("rb") if whole.exists() else io.BytesIO()


def _plain(file: Path) -> Iterator[bytes]:
    """The content in pieces, of gzip members one after the other; ends without a word where one is broken."""
    with _open(file) as stream:
        raw = stream.read(_CHUNK)
        if not raw.startswith(_GZIP_MAGIC):
            while raw:
                yield raw
                raw = stream.read(_CHUNK)
            return
        inflate = zlib.decompressobj(GZIP_BITS)
        while raw:
            try:
                data = inflate.decompress(raw)
            except zlib.error:
                return
            if data:
                yield data
            raw = inflate.unused_data or stream.read(_CHUNK)
            if inflate.eof:
                inflate = zlib.decompressobj(GZIP_BITS)
