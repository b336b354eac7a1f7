"""Reading recorded frames: folders of text files, gzipped or not, merged by receive time.

Line formats: `<receive time> <frame>` with the time in s, ms, us or ns since 1970 (told apart by size),
and cryptofeed's `<receive time in s>: <frame>` below a `<url> <-> <time>` line. Lines that hold no
combined-stream frame (REST bodies, `-> `answers) are passed over.
"""

import gzip
import heapq
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_SECONDS = re.compile(rb"(\d+)(?:\.(\d+))?:?")
_LINE_A, _LINE_B = (re.compile(rf"\d{{8}}T\d{{15}}Z-{line}-\w+-\d+\.gz") for line in "ab")
_STREAM = b'{"stream":"'
_DATA = b'","data":'


class Frame(NamedTuple):
    """One recorded frame: receive time in ns, stream name, and the bytes of its payload."""

    recv_ns: int
    stream: str
    payload: bytes


def list_files(path: Path, pattern: str = "*") -> list[Path]:
    """The files of a recording, `path` being one file, or a folder in which `pattern` picks.

    Of what `tradeback record` made on two lines only line A: both would send everything twice. ValueError
    when there are none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"{path} is no folder or file; give --source a folder with recorded frames")
    files = sorted(file for file in path.glob(pattern) if file.is_file() and not file.name.startswith("."))
    if any(_LINE_A.fullmatch(file.name) for file in files):
        files = [file for file in files if not _LINE_B.fullmatch(file.name)]
    if not files:
        raise ValueError(f"{path} holds no files {pattern}; give --source a folder with recorded frames")
    return files


def to_ns(text: bytes) -> int | None:
    """A receive time in any of the units, in ns; None when it is none."""
    match = _SECONDS.fullmatch(text)
    if match is None:
        return None
    whole, fraction = match.groups()
    value = int(whole)
    if fraction is not None:
        return value * 1_000_000_000 + int((fraction + b"000000000")[:9])
    for bound, factor in ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3)):
        if value < bound:
            return value * factor
    return value


def parse_line(line: bytes) -> Frame | None:
    """The frame of one line; None when it holds none."""
    time, _, body = line.rstrip(b"\r\n").partition(b" ")
    if not body.startswith(_STREAM) or not body.endswith(b"}"):
        return None
    at = body.find(_DATA, len(_STREAM))
    recv_ns = to_ns(time)
    if at < 0 or recv_ns is None:
        return None
    return Frame(recv_ns, body[len(_STREAM) : at].decode(), body[at + len(_DATA) : -1])


def read_file(path: Path) -> Iterator[Frame]:
    """The frames of one file, in order."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
        for line in lines:
            found = parse_line(line)
            if found is not None:
                yield found


def read_merged(paths: list[Path]) -> Iterator[Frame]:
    """The frames of all files by receive time; files that begin later are opened when their time comes."""
    return heapq.merge(*(read_file(path) for path in paths), key=lambda frame: frame.recv_ns)
