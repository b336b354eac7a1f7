"""What a feed hands out: batches of market data, and events about the connection."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tradeback.model.record import LATE, REPAIRED
from tradeback.wire.v1 import ENTRY, Entries
from tradeback.wire.v2 import exact
from tradeback.wire.v2_frame import GAP_OPEN, GAP_REPAIRED, GAP_UNREPAIRABLE, Array, Frame
from tradeback.wire.v2_layout import FRAME_REPLAY, FRAME_SNAPSHOT, SNAPSHOT

GAP_STATES: Final[Mapping[int, str]] = {
    GAP_OPEN: "open",
    GAP_REPAIRED: "repaired",
    GAP_UNREPAIRABLE: "unrepairable",
}


class Position(NamedTuple):
    """A place on the engine's tape: everything before `sequence` of `epoch` has been handed out."""

    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class FeedSymbol:
    """A symbol as the engine describes it in `subscribed`."""

    id: int
    symbol: str
    price_precision: int
    quantity_precision: int


@dataclass(frozen=True, slots=True)
class Latency:
    """How long one frame took, hop by hop, in us; None where it cannot be told.

    The first and the last hop compare clocks of two machines, so they may be wrong by as much as these
    clocks differ, and negative. Frames of a snapshot or a replay, and heartbeats, have no such times.
    """

    exchange_to_engine_us: int | None
    """From the newest trade's time at the exchange until the engine had read it."""
    inside_engine_us: int | None
    """From then until the frame was handed to the engine's sockets."""
    engine_to_client_us: int | None
    """From then until this program's socket handed it over, by this machine's clock."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A change in the life of a gap: ids that the exchange gave and that did not arrive in time."""

    symbol: str
    symbol_id: int
    state: str
    """`open`, `repaired`, or `unrepairable`."""
    first_id: int
    last_id: int
    missing: int
    """Ids that are still missing."""
    stream: int
    """1: trades, 3: aggregated trades."""
    exchange_us: int
    """Around when it happened, by the exchange's clock."""
    noted_us: int
    """When the engine noted this state."""


class Batch:
    """One frame of version 2. Arrays have the dtypes of `tradeback.wire.v2_frame`; any may be empty.

    `place` in every array counts a frame's entries through all kinds: their order on the tape.
    """

    __slots__ = ("enigma", "frame", "gaps", "quotes", "recv_ns", "trades")

    def __init__(self, frame: Frame, recv_ns: int) -> None:
        self.frame = frame
        self.trades: Array = frame.trades
        """id, exchange_us, price, quantity, ..., flags (see docs/wire.md)."""
        self.quotes: Array = frame.quotes
        """bid, bid_quantity, ask, ask_quantity, skipped, ..."""
        self.gaps: Array = frame.gaps
        self.enigma: Array = frame.enigma
        """level, ath, atl, price, trade_id, exchange_us, ..."""
        self.recv_ns = recv_ns
        """Wall clock when this program's socket handed the frame over, ns since 1970."""

    def __repr__(self) -> str:
        kinds = {"trades": self.trades, "quotes": self.quotes, "gaps": self.gaps, "enigma": self.enigma}
        held = ", ".join(f"{len(array)} {name}" for name, array in kinds.items() if len(array))
        flags = ("snapshot, " if self.snapshot else "") + ("replay, " if self.replay else "")
        return f"<Batch {flags}{held or 'empty'}, up to {self.frame.sequence}>"

    @property
    def position(self) -> Position:
        """What the frame reaches. Of a snapshot it says nothing to resume from: use `Feed.position`."""
        return Position(self.frame.epoch, self.frame.sequence)

    @property
    def snapshot(self) -> bool:
        """It says what was known when the subscription began; nothing in it happened now."""
        return bool(self.frame.flags & FRAME_SNAPSHOT)

    @property
    def replay(self) -> bool:
        """It was made from the tape for this client alone: after a resume, or because it read slowly."""
        return bool(self.frame.flags & FRAME_REPLAY)

    @property
    def engine_recv_us(self) -> int:
        """When the engine had read the newest record of it from the exchange, us since 1970, its clock."""
        return self.frame.recv_us

    @property
    def publish_delay_us(self) -> int:
        """From then until the frame was handed to the engine's sockets."""
        return self.frame.delay_us

    @property
    def latency(self) -> Latency:
        """Where the time went."""
        frame = self.frame
        if frame.flags & (FRAME_SNAPSHOT | FRAME_REPLAY) or not len(self.trades) + len(self.quotes):
            return Latency(None, None, None)
        timed = self.trades["exchange_us"][self.trades["flags"] & (REPAIRED | LATE) == 0]
        newest = int(timed.max()) if len(timed) else 0
        return Latency(
            frame.recv_us - newest if newest else None,
            frame.delay_us,
            self.recv_ns // 1_000 - frame.recv_us - frame.delay_us,
        )

    @property
    def entries(self) -> Entries:
        """The trades as version 1 has them: symbol_id, price, volume; those of a snapshot with volume 0."""
        found = np.empty(len(self.trades), ENTRY)
        found["symbol_id"], found["price"] = self.trades["symbol_id"], self.trades["price"]
        found["volume"] = np.where(self.trades["flags"] & SNAPSHOT, 0.0, self.trades["quantity"])
        return found

    def prices(self, symbol_id: int | None = None) -> NDArray[np.float64]:
        """Prices of the trades, of one symbol or all: the float64 nearest to each exchange decimal."""
        return self._of(self.trades, "price", symbol_id)

    def quantities(self, symbol_id: int | None = None) -> NDArray[np.float64]:
        """Quantities of the trades, in the order of `prices`."""
        return self._of(self.trades, "quantity", symbol_id)

    def exact_prices(self, symbol_id: int | None = None) -> list[Decimal]:
        """Prices of the trades as the decimals that were sent, digit for digit."""
        return self._decimals("price", symbol_id)

    def exact_quantities(self, symbol_id: int | None = None) -> list[Decimal]:
        """Quantities of the trades as the decimals that were sent."""
        return self._decimals("quantity", symbol_id)

    def _of(self, array: Array, field: str, symbol_id: int | None) -> NDArray[np.float64]:
        chosen = array if symbol_id is None else array[array["symbol_id"] == symbol_id]
        return np.ascontiguousarray(chosen[field])

    def _decimals(self, field: str, symbol_id: int | None) -> list[Decimal]:
        units = self._of(self.trades, f"{field}_units", symbol_id).tolist()
        digits = self._of(self.trades, f"{field}_digits", symbol_id).tolist()
        return [exact(unit, digit) for unit, digit in zip(units, digits, strict=True)]

    def gap_events(self, symbols: Mapping[int, FeedSymbol]) -> Iterator[Gap]:
        """The gaps, one by one."""
        for row in self.gaps:
            symbol_id = int(row["symbol_id"])
            known = symbols.get(symbol_id)
            yield Gap(
                known.symbol if known else f"#{symbol_id}",
                symbol_id,
                GAP_STATES.get(int(row["state"]), f"#{row['state']}"),
                *(int(row[name]) for name in ("first_id", "last_id", "missing", "stream")),
                *(int(row[name]) for name in ("exchange_us", "noted_us")),
            )


@dataclass(frozen=True, slots=True)
class BatchV1:
    """One frame of version 1. `entries` has the fields symbol_id, price, volume."""

    entries: Entries
    recv_ns: int
    """Wall clock when the frame was handed over by the socket, ns since 1970."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The engine cannot go on where this client was: records are missing between two positions.

    A snapshot follows, then live data.
    """

    reason: str
    """The engine's words."""
    held: Position
    """Up to here everything has been handed out."""
    now: Position | None
    """From here on it goes on."""


@dataclass(frozen=True, slots=True)
class Control:
    """A text message of the engine, or the feed's own `{"type":"disconnected","reason":...}`."""

    message: dict[str, Any]

    @property
    def type(self) -> str:
        """`subscribed`, `error`, `enigma` (version 1), `resumed`, `resume_refused`, `disconnected`, ..."""
        return str(self.message.get("type", ""))


Event = Batch | BatchV1 | Control | Lost
