"""Messages that come in several frames (RFC 6455 section 5.4). The exchange sends none; proxies may. Pure."""

from tradeback.model.limits import READ_BUFFER_BYTES_MAX

TEXT = 0x01
FINAL = 0x80
FRAGMENTS_MAX = 65_536
"""Frames of one message; empty ones cost memory too."""


class Fragments:
    """Joins the frames of one message at a time."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._bytes = 0
        self.too_long = False
        """The message has outgrown READ_BUFFER_BYTES_MAX or FRAGMENTS_MAX; nothing more is kept of it."""

    def add(self, opcode: int, payload: bytes) -> bytes | None:
        """Take a text frame without FIN or a continuation (`opcode` with the FIN bit).

        Returns the whole message with its last frame, else None. ValueError for a continuation of nothing.
        A text frame begins anew; what was unfinished is dropped.
        """
        if opcode & 0x0F == TEXT:
            self._parts, self._bytes = [], 0
        elif not self._parts:
            raise ValueError("a continuation of nothing")
        self._parts.append(payload)
        self._bytes += len(payload)
        if self._bytes > READ_BUFFER_BYTES_MAX or len(self._parts) > FRAGMENTS_MAX:
            self.too_long, self._parts = True, []
        elif opcode & FINAL:
            whole, self._parts = b"".join(self._parts), []
            return whole
        return None
