"""Which requests another process may answer: history that everybody may see, asked for in the plainest way.
Pure.

Anything that tells who asks or from which page (cookies, Authorization, Origin) stays with the engine,
which knows sessions and limits; so does everything that is not history.
"""

from typing import Final

UDF: Final = b"GET /udf/history?"
BARS: Final = (b"GET /api/v1/symbols/", b"/bars")
STAYS: Final = (
    b"\r\ncookie:", b"\r\nauthorization:", b"\r\norigin:", b"\r\ncontent-length:", b"\r\ntransfer-encoding:",
    b"\r\nexpect:", b"\r\nupgrade:", b"\r\nforwarded:", b"\r\nx-forwarded-for:",
)  # fmt: skip


def may_go(head: bytes) -> bool:
    """Whether a request head (without the blank line) is such a request."""
    line, _, _ = head.partition(b"\r\n")
    if not line.startswith(UDF):
        path = line.partition(b"?")[0].removesuffix(b" HTTP/1.1")
        if not (path.startswith(BARS[0]) and path.endswith(BARS[1]) and path.count(b"/") == 5):
            return False
    if not line.endswith(b" HTTP/1.1") or b"%" in line.partition(b"?")[0]:
        return False
    lowered = head[len(line) :].lower()
    return not any(name in lowered for name in STAYS)
