"""The `enigma` channel: at most one message per symbol and interval, encoded once for all.

Text for clients of version 1, binary for those of version 2.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tradeback.feed.client import Client
from tradeback.feed.interest import EVERYTHING, NOTHING, SYMBOL_IDS, Interest, union
from tradeback.model.symbols import SymbolTable
from tradeback.wire import control
from tradeback.wire.frames import TEXT, server_frame

EnigmaOf = Callable[[int], Mapping[str, Any] | None]
"""The Enigma of a symbol id as the API answers it, or None while there is none."""
EnigmaFrame = Callable[[int], bytes | None]
"""The Enigma of a symbol id as a finished version 2 message, or None while there is none."""


class EnigmaChannel:
    """Who wants the Enigma of which symbol, and what they have seen.

    A symbol is due when it has traded since it was last sent (`trades_seen`, int64 by symbol id, is
    counted by the encode kernel). A client that is lagging is passed over and gets the current values
    when it has drained.
    """

    def __init__(
        self,
        symbols: SymbolTable,
        trades_seen: NDArray[np.int64],
        enigma_of: EnigmaOf,
        enigma_frame: EnigmaFrame,
    ) -> None:
        self._symbols = symbols
        self._seen = trades_seen
        self._sent: NDArray[np.int64] = np.zeros(SYMBOL_IDS, np.int64)
        self._enigma_of, self._enigma_frame = enigma_of, enigma_frame
        self._clients: dict[int, set[Client]] = {}
        self._ids: NDArray[np.int64] | None = None
        self.messages = 0

    @property
    def wanted(self) -> bool:
        """True while anybody listens."""
        return bool(self._clients)

    def subscribe(self, client: Client, asked: Interest) -> None:
        """Send the current values of the symbols that are new to this client, then every change."""
        fresh = asked - client.enigma if client.enigma != EVERYTHING else NOTHING
        self.change(client, union(client.enigma, asked))
        self._send_current(client, fresh)

    def change(self, client: Client, interest: Interest) -> None:
        """Set what a client wants."""
        for symbol_id in client.enigma:
            listed = self._clients.get(symbol_id)
            if listed is not None:
                listed.discard(client)
                if not listed:
                    del self._clients[symbol_id]
        client.enigma = interest
        for symbol_id in interest:
            self._clients.setdefault(symbol_id, set()).add(client)
        self._ids = None

    def publish(self) -> None:
        """Send what has changed since the last call."""
        if not self._clients:
            return
        ids = self._watched()
        due = ids[self._seen[ids] != self._sent[ids]]
        self._sent[due] = self._seen[due]
        everywhere = self._clients.get(0, set())
        for symbol_id in due.tolist():
            made: dict[int, bytes | None] = {}
            for client in self._clients.get(symbol_id, set()) | everywhere:
                version = client.lane.version
                if version not in made:
                    made[version] = self._frame(symbol_id, version)
                frame = made[version]
                if client.lagging or client.replay is not None:
                    client.enigma_missed = True
                elif frame is not None:
                    client.write(frame)
                    self.messages += 1

    def drained(self, client: Client) -> None:
        """A client reads again: what it missed is worth one message per symbol."""
        if client.enigma_missed:
            client.enigma_missed = False
            self._send_current(client, client.enigma)

    def _watched(self) -> NDArray[np.int64]:
        if 0 in self._clients:
            return np.fromiter((symbol.id for symbol in self._symbols), np.int64)
        if self._ids is None:
            self._ids = np.fromiter(self._clients, np.int64, len(self._clients))
        return self._ids

    def _send_current(self, client: Client, ids: Iterable[int]) -> None:
        if client.lagging or client.replay is not None:
            # Version 2 puts the tape's position into the message: it must not overtake what is on the way.
            client.enigma_missed = True
            return
        named = set(ids)
        listed = (symbol.id for symbol in self._symbols) if 0 in named else named
        version = client.lane.version
        made = (self._frame(symbol_id, version) for symbol_id in listed)
        frames = [frame for frame in made if frame is not None]
        if frames and not client.closing:
            client.write(b"".join(frames))
            self.messages += len(frames)

    def _frame(self, symbol_id: int, version: int) -> bytes | None:
        if version == 2:
            return self._enigma_frame(symbol_id)
        data = self._enigma_of(symbol_id)
        return None if data is None else server_frame(TEXT, orjson.dumps(control.enigma(data)))
