"""What one connection says, made into events: the conversation after the handshake. No socket, no clock.

Exactly once: `position` moves with every frame that is handed out. After a break the next connection asks
for everything from there on, before it subscribes; the engine answers `resumed`, replays and goes on live,
or refuses, which is told as `Lost`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson

from tradeback.client.batch import Batch, BatchV1, Control, Event, FeedSymbol, Lost, Position
from tradeback.client.wants import EVERY, Wants
from tradeback.model.errors import DecodeError
from tradeback.wire.control import CHANNELS
from tradeback.wire.v1 import decode_v1
from tradeback.wire.v2 import Decoder
from tradeback.wire.v2_frame import UNKNOWN_SYMBOL, Frame, WireError
from tradeback.wire.v2_layout import FRAME_SNAPSHOT

ACCELERATE_AFTER, ACCELERATE_AFTER_BYTES = 2_000, 1 << 19
"""Frames, or bytes of frames, after which the compiled decoder is worth its loading."""


class Session:
    """State that outlives connections: symbols, position, what is wanted."""

    def __init__(self, wants: Wants, position: Position | None) -> None:
        self.symbols: dict[int, FeedSymbol] = {}
        self.position = position
        self.wants = wants
        self.decoder = Decoder()
        self.frames = 0
        """Binary messages decoded."""
        self.frame_bytes = 0
        self.version = 2
        self._asked_for: Position | None = None
        """A resume without an answer yet."""
        self._answered: Position | None = None
        """What the latest `subscribed` said, while a resume waits for its answer."""
        self._covering = False
        self._watch: set[int] = set()
        """Symbol ids that the session's market watch has brought."""
        self._held: list[tuple[bytes, int]] = []
        """Frames with a symbol that the feed does not know yet."""

    def begin(self, version: int) -> list[bytes]:
        """A connection is up; the requests that open it."""
        self.version = version
        self._asked_for = self._answered = None
        self._held.clear()
        request = self.wants.request()
        requests = []
        if version == 1:
            request["channels"] = [name for name in request["channels"] if name in CHANNELS] or ["trades"]
        elif self.position is not None and request["channels"] != ["enigma"]:
            self._asked_for = self.position
            requests.append({"type": "resume", **self.position._asdict()})
        self._covering = version == 2 and not self.wants.even
        if self.wants:
            requests.append(request)
        return [orjson.dumps(one) for one in requests]

    def text(self, payload: bytes, send: Callable[[bytes], None]) -> Iterator[Event]:
        """One text message. Raises DecodeError for one that says nothing we understand."""
        try:
            message = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise DecodeError(f"text that is no JSON: {error}") from None
        if not isinstance(message, dict):
            raise DecodeError("JSON that is no object")
        kind = message.get("type")
        if kind == "subscribed":
            try:
                answered = self._learn(message)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise DecodeError(f"a `subscribed` without what belongs into it: {error!r}") from None
            yield from self._subscribed(message, answered, send)
        elif kind == "auto_subscribe":
            try:
                self._watched(message["data"])
            except (KeyError, TypeError, ValueError) as error:
                raise DecodeError(f"an `auto_subscribe` without what belongs into it: {error!r}") from None
        elif kind == "resumed":
            self._asked_for = None
        yield Control(message)
        if kind == "resume_refused" and self._asked_for is not None:
            held, self._asked_for = self._asked_for, None
            self.position = self._answered
            yield Lost(str(message.get("reason", "")), held, self.position)

    def _watched(self, told: dict[str, Any]) -> None:
        """A symbol of the session's market watch, which the engine delivers without being asked."""
        if "price_precision" in told:  # an engine of another make may tell less
            precision = told["price_precision"], told["quantity_precision"]
            known = FeedSymbol(told["id"], told["symbol"], *precision)
            self.symbols[known.id] = known
            self._watch.add(known.id)
            self.decoder.learn(known.id, known.price_precision, known.quantity_precision)
        if self.position is None and "sequence" in told:
            self.position = Position(told["epoch"], told["sequence"])

    def _learn(self, message: dict[str, Any]) -> Position | None:
        """Take the symbols of a `subscribed`; where the tape was, if it says so. What else it has is left."""
        for name, told in message["symbols"].items():
            symbol = FeedSymbol(told["id"], name, told["price_precision"], told["quantity_precision"])
            self.symbols[symbol.id] = symbol
            self.decoder.learn(symbol.id, symbol.price_precision, symbol.quantity_precision)
        return Position(message["epoch"], message["sequence"]) if "sequence" in message else None

    def _subscribed(
        self, message: dict[str, Any], answered: Position | None, send: Callable[[bytes], None]
    ) -> Iterator[Event]:
        held, self._held = self._held, []
        for payload, recv_ns in held:
            yield from self._decoded(self.decoder.decode(payload), recv_ns)
        if answered is not None:
            if self._asked_for is None:
                self.position = answered
            self._answered = answered
        if self._covering and answered is not None:  # else it tells of a symbol that came
            self._covering = False
            for request in self.wants.excess(message["symbols"]):
                send(orjson.dumps(request))

    @property
    def is_busy(self) -> bool:
        """Whether so much comes that the compiled decoder is worth its loading."""
        return self.frames > ACCELERATE_AFTER or self.frame_bytes > ACCELERATE_AFTER_BYTES

    def binary(self, payload: bytes, recv_ns: int, send: Callable[[bytes], None]) -> Iterator[Event]:
        """One binary message. Raises DecodeError for a damaged one."""
        if self.version == 1:
            yield BatchV1(decode_v1(payload), recv_ns)
            return
        if self._asked_for is not None:
            return  # of the market watch, before the answer to the resume: it comes again behind that
        self.frames += 1
        self.frame_bytes += len(payload)
        if self._held:
            self._held.append((payload, recv_ns))
            return
        try:
            frame = self.decoder.decode(payload)
        except WireError as error:
            if error.code != UNKNOWN_SYMBOL or not self.wants.everything:
                raise
            # A symbol that was listed after the subscription: ask what it is, and wait for the answer.
            self._held.append((payload, recv_ns))
            channels = self.wants.request()["channels"]
            send(orjson.dumps({"type": "subscribe", "symbols": [EVERY], "channels": channels}))
            self._covering = not self.wants.even
            return
        yield from self._decoded(frame, recv_ns)

    def _decoded(self, frame: Frame, recv_ns: int) -> Iterator[Event]:
        if not frame.flags & FRAME_SNAPSHOT:
            self.position = Position(frame.epoch, frame.sequence)
        if frame.is_heartbeat:
            return
        batch = Batch(frame, recv_ns)
        if self.wants.even or self._choose(batch):
            yield batch

    def _choose(self, batch: Batch) -> bool:
        """Leave out what was only asked for because one request cannot say less. False: that is all."""
        left = 0
        ids_by_name = {symbol.symbol: symbol.id for symbol in self.symbols.values()}
        for channel in ("trades", "quotes", "gaps", "enigma"):
            ids = self.wants.ids(channel, ids_by_name)
            array = getattr(batch, channel)
            if ids is not None:
                ids = ids | self._watch if channel == "trades" else ids
                array = array[np.isin(array["symbol_id"], list(ids))]
                setattr(batch, channel, array)
            left += len(array)
        return left > 0
