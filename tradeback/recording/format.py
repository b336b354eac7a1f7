"""How a recording is written: lines, marks, file names. See docs/recording.md.

A line is `<receive time in ns> <frame>`. What is no frame is a mark: `<time> #{"event": ...}`, which
readers of frames pass over (the simulator too, because no frame begins with `#`).
"""

import json
import re
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

BEGIN: Final = "begin"
"""First line of a file: line, stream, shard, endpoint, number of symbols, version."""
CONNECTED: Final = "connected"
"""A connection subscribes, from here on frames come; without a LOST before it beside another one."""
LOST: Final = "lost"
"""The last connection has ended; until the next CONNECTED nothing can come."""
DROPPED: Final = "dropped"
"""Frames that were not written, with their number, bytes and first and last receive time."""
ODD: Final = "odd"
"""A message that cannot stand on a line (binary, or with a line break), in base64."""
END: Final = "end"
"""Last line of a file: why, frames, bytes."""

PART_SUFFIX: Final = ".part"
FILE_SUFFIX: Final = ".gz"
SYMBOLS_FILE: Final = "symbols.json"
MARK: Final = b"#"
_NAME = re.compile(r"(\d{8}T\d{15}Z)-([ab])-(\w+)-(\d+)\.gz")


class Channel(NamedTuple):
    """Which connection a file holds: line 0 (A) or 1 (B), stream kind, shard."""

    line: int
    stream: str
    shard: int

    @property
    def name(self) -> str:
        """As in the names of lines: `a:trade:0`."""
        return f"{'ab'[self.line]}:{self.stream}:{self.shard}"


def mark(time_ns: int, event: str, **fields: Any) -> bytes:
    """One mark with its line end."""
    body = json.dumps({"event": event, **fields}, ensure_ascii=False, separators=(",", ":"))
    return b"%d #%b\n" % (time_ns, body.encode())


def parse_mark(body: bytes) -> dict[str, Any] | None:
    """The fields of a mark; None for a frame, and for what only looks like a mark."""
    if not body.startswith(MARK):
        return None
    try:
        fields = json.loads(body[1:])
    except ValueError:
        return None
    return fields if isinstance(fields, dict) and isinstance(fields.get("event"), str) else None


def file_name(channel: Channel, begun_ns: int) -> str:
    """`20260131T120000123456789Z-a-trade-0.gz`: sorts by time within a channel."""
    moment = datetime.fromtimestamp(begun_ns // 1_000_000_000, UTC)
    stamp = f"{moment:%Y%m%dT%H%M%S}{begun_ns % 1_000_000_000:09d}Z"
    return f"{stamp}-{'ab'[channel.line]}-{channel.stream}-{channel.shard}{FILE_SUFFIX}"


def part_name(name: str) -> str:
    """What a file is called while it is written: hidden, so that whoever lists the folder passes over it."""
    return f".{name}{PART_SUFFIX}"


def channel_of(name: str) -> Channel | None:
    """The channel in a file's name, finished or in the making; None for names that are not ours."""
    found = _NAME.fullmatch(name.removeprefix(".").removesuffix(PART_SUFFIX))
    return Channel("ab".index(found[2]), found[3], int(found[4])) if found else None
