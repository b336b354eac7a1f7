"""The tape on NATS: into a stream, exactly once and in order, or live only.

With a stream the position is the stream itself: its last message says up to where it holds the tape. So
whatever is killed, the drain goes on right behind it. Without one the position is kept here, and a drain that
knows none begins at the tape's end.
"""

import asyncio
import time
from collections.abc import Iterable

import orjson

from tradeback.derive.completeness_gap import STATE_NAMES
from tradeback.model.config import NatsConfig
from tradeback.model.errors import StoreError
from tradeback.model.record import GAP, KIND_NAMES, Rows
from tradeback.sinks.drain_ports import Batch, Written
from tradeback.sinks.nats import Session, Symbols, Tape
from tradeback.stores.nats_stream import LastChanged, TapeStream, tape_subject
from tradeback.stores.ports import Position
from tradeback.wire.v2_exact import ExactCodec, Piece, position_of
from tradeback.wire.v2_frame import WireError

GAPS_SUBJECT = "tradeback.gaps"
OTHER_RECENT_S = 10.0
"""A message of another tape that is younger comes from an engine that publishes now."""
THREAD_ROWS = 512
"""Larger batches are encoded in a thread."""


class _Ticks:
    """What both ways have in common: encoding, and gaps beside the tape."""

    def __init__(self, session: Session, config: NatsConfig, source: Tape, symbols: Symbols) -> None:
        self._session, self._config, self._source, self._symbols = session, config, source, symbols
        self._codec = ExactCodec()
        self._names: dict[int, str] = {}

    async def close(self) -> None:
        """See Target."""
        await self._session.leave()

    async def _begin(self) -> None:
        await self._session.enter()
        await asyncio.to_thread(self._codec.attach)
        self._learn()

    def _learn(self) -> None:
        known = list(self._symbols())
        self._names = {symbol.id: symbol.symbol for symbol in known}
        self._codec.learn(known)

    async def _encode(self, rows: Rows, epoch: int, first: int) -> list[Piece]:
        if self._codec.unknown(rows):
            self._learn()
            unknown = self._codec.unknown(rows)
            if unknown:
                raise StoreError(f"the registry does not know symbols {sorted(unknown)} yet")
        if len(rows) > THREAD_ROWS:
            return await asyncio.to_thread(self._codec.encode, rows, epoch, first)
        return self._codec.encode(rows, epoch, first)

    async def _tell_gaps(self, rows: Rows) -> None:
        """Twice does no harm: a message says what the state is."""
        gaps = rows[rows["kind"] == GAP]
        for message in gap_messages(gaps, self._names) if len(gaps) else ():
            await self._session.bus.send(GAPS_SUBJECT, message)


class StreamTarget(_Ticks):
    """Into JetStream."""

    def __init__(self, session: Session, config: NatsConfig, source: Tape, symbols: Symbols) -> None:
        super().__init__(session, config, source, symbols)
        self._stream = TapeStream(session.bus, config)
        self._held: Position | None = None
        """Up to where the stream holds the tape."""
        self._last = 0
        """Number of the stream's last message."""
        self._sure = False
        self._writing = 0
        """Epoch of what was written since `open`."""

    async def open(self) -> Position | None:
        """See Target."""
        await self._begin()
        await self._stream.ensure()
        await self._look()
        self._writing = 0
        held = self._held
        if held is not None and held.epoch not in dict(self._source.epochs()):
            published_s = await self._stream.published_s(self._last)
            if published_s is not None and time.time() - published_s < OTHER_RECENT_S:
                raise StoreError(self._other())
        return held

    async def save(self, position: Position) -> None:
        """See Target: the stream holds it."""

    async def write(self, batch: Batch) -> Written:
        """See Target."""
        if not self._sure:
            await self._look()
            if self._writing and self._held is not None and self._held.epoch != self._writing:
                raise StoreError(self._other())
        skip = self._behind(batch)
        if skip < len(batch.rows):
            rows = batch.rows[skip:]
            pieces = await self._encode(rows, batch.epoch, batch.first_sequence + skip)
            await self._append(pieces)
            await self._tell_gaps(rows)
        return Written()

    def _behind(self, batch: Batch) -> int:
        """How many of the batch's records the stream has."""
        held = self._held
        if held is None or held.epoch != batch.epoch:
            return 0
        return min(len(batch.rows), max(0, held.sequence + 1 - batch.first_sequence))

    async def _append(self, pieces: list[Piece]) -> None:
        self._sure = False
        self._writing = pieces[-1].epoch
        messages = [(f"{piece.epoch:08x}-{piece.end - 1}", piece.frame) for piece in pieces]
        try:
            self._last = await self._stream.append(messages, self._last)
        except LastChanged:
            await self._look()
            if self._held is not None and self._held.epoch != self._writing:
                raise StoreError(self._other()) from None
            raise
        self._held = Position(pieces[-1].epoch, pieces[-1].end - 1)
        self._sure = True

    async def _look(self) -> None:
        """Read where the stream is."""
        first, self._last = await self._stream.state()
        frame = await self._stream.read(self._last) if first <= self._last else None
        try:
            found = position_of(frame) if frame is not None else None
        except WireError as error:
            raise StoreError(
                f"the last message of {self._stream.name} is no batch of a tape ({error}): somebody else "
                f"publishes to {self._stream.subject}; stop that, and delete the stream"
            ) from error
        self._held = Position(found[0], found[1] - 1) if found is not None else None
        self._sure = True

    def _other(self) -> str:
        return (
            f"another engine publishes its tape as node {self._config.node!r}: give each engine a NATS_NODE "
            "of its own"
        )


class LiveTarget(_Ticks):
    """To whoever listens now."""

    SINK = "nats:ticks"

    async def open(self) -> Position | None:
        """See Target."""
        await self._begin()
        held = await asyncio.to_thread(self._session.connection.positions.load, self.SINK)
        if held is not None:
            return held
        epochs = self._source.epochs()
        return Position(epochs[-1][0], self._source.next_sequence - 1) if epochs else None

    async def save(self, position: Position) -> None:
        """See Target."""
        await asyncio.to_thread(self._session.connection.positions.save, self.SINK, position)

    async def write(self, batch: Batch) -> Written:
        """See Target."""
        bus, subject = self._session.bus, tape_subject(self._config.node)
        before = bus.denials.count
        for piece in await self._encode(batch.rows, batch.epoch, batch.first_sequence):
            name = f"{piece.epoch:08x}-{piece.end - 1}"
            await bus.send(subject, piece.frame, {"Nats-Msg-Id": name})
        await self._tell_gaps(batch.rows)
        await bus.flush()
        bus.check_permitted(before, subject, GAPS_SUBJECT)
        return Written()


def gap_messages(gaps: Rows, names: dict[int, str]) -> Iterable[bytes]:
    """GAP records as JSON; the keys are those of `GET /gaps`, with `noted_at` in place of both its times."""
    for row in gaps.tolist():
        exchange_us, recv_ns, first, missing, state, last, stream, symbol_id, _, _, _ = row
        yield orjson.dumps(
            {
                "symbol": names.get(symbol_id, str(symbol_id)),
                "stream": KIND_NAMES.get(int(stream), str(int(stream))),
                "state": STATE_NAMES.get(int(state), str(int(state))),
                "from_id": first,
                "to_id": int(last),
                "missing": int(missing),
                "noted_at": recv_ns // 1_000_000,
                "time": exchange_us // 1_000 or None,
            }
        )
