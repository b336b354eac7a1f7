"""The place where faults come in. Pure: decisions only. Absent (None) it costs one test per write."""

from typing import NamedTuple, Protocol


class RestAnswer(NamedTuple):
    """An answer of REST before it goes out."""

    status: int
    body: bytes
    headers: dict[str, str]


class Faults(Protocol):
    """Consulted where frames leave a connection and where REST answers leave."""

    def on_frames(self, connection: int, frames: list[bytes]) -> list[bytes]:
        """The complete WebSocket frames that connection number `connection` gets instead of `frames`."""

    def on_rest(self, path: str, query: dict[str, str], answer: RestAnswer) -> RestAnswer:
        """The answer that goes out instead of `answer`."""
