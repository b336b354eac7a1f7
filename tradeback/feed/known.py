"""What the feed sends of the derived series: latest prices, quotes and Enigma."""

from collections.abc import Callable
from typing import Any, Protocol

from tradeback.path.path import HotTape
from tradeback.wire.frames import BINARY, server_frame
from tradeback.wire.v2_encode import EnigmaLike, enigma_frames


class Series(Protocol):
    """The derived state; `derive.state.Derived` is it."""

    def latest(self, symbol_id: int) -> Any:
        """All that is known of a symbol (`derive.layout.STATE`), or None."""

    def enigma(self, symbol_id: int) -> EnigmaLike | None:
        """Its Enigma, or None before its first trade."""


Known = Callable[[], Series | None]
"""The derived series, once there is one."""


def nothing_known() -> None:
    """For a feed without history."""
    return


def latest_of(known: Known) -> Callable[[int], Any]:
    """The state of a symbol id, or None."""

    def latest(symbol_id: int) -> Any:
        series = known()
        return None if series is None else series.latest(symbol_id)

    return latest


def enigma_message(series: Series | None, symbol_id: int, tape: HotTape, wall_ns: int) -> bytes | None:
    """The Enigma of a symbol as a finished version 2 message, or None while there is none."""
    found = None if series is None else series.enigma(symbol_id)
    if found is None:
        return None
    (frame,) = enigma_frames([found], epoch=tape.epoch, sequence=tape.next_sequence, recv_ns=wall_ns)
    return server_frame(BINARY, frame)
