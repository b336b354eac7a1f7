"""What the feed sends of the derived series: latest prices, quotes and Enigma."""

from collections.abc import Callable, Collection
from typing import Any, Protocol

import numpy as np

from tradeback.derive.layout import States, empty_states
from tradeback.path.path import HotTape
from tradeback.wire.frames import BINARY, server_frame
from tradeback.wire.v2_encode import EnigmaLike, enigma_frames


class Series(Protocol):
    """The derived state; `derive.state.Derived` is it."""

    def latest(self, symbol_id: int) -> Any:
        """All that is known of a symbol (`derive.layout.STATE`), or None."""

    def latest_all(self) -> States:
        """The same of every symbol."""

    def enigma(self, symbol_id: int) -> EnigmaLike | None:
        """Its Enigma, or None before its first trade."""


Known = Callable[[], Series | None]
"""The derived series, once there is one."""


def nothing_known() -> None:
    """For a feed without history."""
    return


FEW = 32
"""So many symbols are looked up one by one; for more, all of them are copied at once."""
Latest = Callable[[Collection[int] | None], States]
"""The states of these symbol ids, None: of all, as far as they are known."""


def latest_of(known: Known) -> Latest:
    """What `known` says of symbols."""

    def latest(ids: Collection[int] | None) -> States:
        series = known()
        if series is None:
            return empty_states(0)
        if ids is not None and len(ids) <= FEW:
            found = [state for state in map(series.latest, sorted(ids)) if state is not None]
            states = empty_states(len(found))
            for place, state in enumerate(found):
                states[place] = state
            return states
        states = series.latest_all()
        return states if ids is None else states[np.isin(states["symbol_id"], list(ids))]

    return latest


def enigma_message(series: Series | None, symbol_id: int, tape: HotTape, wall_ns: int) -> bytes | None:
    """The Enigma of a symbol as a finished version 2 message, or None while there is none."""
    found = None if series is None else series.enigma(symbol_id)
    if found is None:
        return None
    (frame,) = enigma_frames([found], epoch=tape.epoch, sequence=tape.next_sequence, recv_ns=wall_ns)
    return server_frame(BINARY, frame)
