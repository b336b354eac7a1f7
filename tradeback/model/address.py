"""Addresses of servers as people write them."""

import re

_ADDRESS = re.compile(r"(?:\[([^\[\]\s]+)\]|([^\s:/@\[\]]+))(?::(\d{1,5}))?")


def split_address(text: str, port: int) -> tuple[str, int]:
    """Host and port of `host`, `host:port` or `[v6]:port`; `port` where none is written.

    Raises ValueError when it is none of them.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise ValueError(f"it is no address; write HOST:PORT, like localhost:{port}")
    written = int(found[3] or port)
    if not 0 < written < 65_536:
        raise ValueError(f"a port is between 1 and 65535; write HOST:PORT, like localhost:{port}")
    return found[1] or found[2], written
