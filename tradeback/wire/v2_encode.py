"""Wire v2, encoder in plain Python: single frames, and what the kernel's bytes are tested against.

The specification is docs/wire.md. `wire.v2_kernel` does the same a hundred times faster, for many groups
of clients at once. Frames are given without the WebSocket header; `wire.frames.server_frame` adds it.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from tradeback.model.record import GAP, QUOTE, TRADE, Rows
from tradeback.wire import v2_layout as at

Grids = Mapping[int, tuple[int, int]]
"""Symbol id -> decimals of price and of quantity."""
Wanted = Callable[[int, int], bool]
"""(kind of record, symbol id) -> whether a frame shall have it."""

_FIXED = struct.Struct("<BBIQ")
_F64 = struct.Struct("<d")
_BITS_64 = (1 << 64) - 1
_BODY_FULL: Final = at.FRAME_BYTES_MAX - at.HEADER_BYTES_MAX - at.ENTRY_BYTES_MAX


class EnigmaLike(Protocol):
    """What an Enigma entry carries; `derive.enigma.Enigma` is one."""

    @property
    def symbol_id(self) -> int: ...
    @property
    def level(self) -> float: ...
    @property
    def ath(self) -> float: ...
    @property
    def atl(self) -> float: ...
    @property
    def price(self) -> float: ...
    @property
    def trade_id(self) -> int: ...
    @property
    def exchange_us(self) -> int: ...


def varint(value: int) -> bytes:
    """The low 64 bits of an integer, seven at a time, low ones first."""
    value &= _BITS_64
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def wrapped(value: int) -> int:
    """The int64 that has the same low 64 bits."""
    return (value + (1 << 63) & _BITS_64) - (1 << 63)


def zigzag(value: int) -> int:
    """0, -1, 1, -2, ... to 0, 1, 2, 3, ..., for an int64 (others wrap)."""
    value = wrapped(value)
    return -2 * value - 1 if value < 0 else 2 * value


def signed(value: int) -> bytes:
    """An int64, short when it is small, whatever its sign."""
    return varint(zigzag(value))


def units_of(value: float, digits: int | None) -> int | None:
    """`value` as a whole number of 10^-digits; None when it is not exactly one."""
    if digits is None:
        return None
    scale = 10.0**digits
    scaled = value * scale
    if not 0.0 <= scaled < at.UNITS_LIMIT - 1.0:
        return None
    units = int(scaled + 0.5)
    return units if units / scale == value else None


def escape(value: float) -> bytes:
    """Any float64, exactly: digits and an integer, or its bits."""
    for digits in range(at.DIGITS_MAX + 1):
        scaled = value * 10.0**digits
        if not 0.0 <= scaled < at.EXACT_LIMIT - 1.0:
            break
        units = int(scaled + 0.5)
        if units / 10.0**digits == value:
            return bytes([digits]) + varint(units)
    return bytes([at.DIGITS_BITS]) + _F64.pack(value)


def time_from(base_us: int, time_us: int) -> bytes:
    """A time as its distance from another: in ms when it is a whole one, else in us."""
    if time_us % 1000 == 0:
        return varint(zigzag(base_us // 1000 - time_us // 1000) << 1)
    return varint(zigzag(base_us - time_us) << 1 | 1)


def sane_time(time_us: int) -> int:
    """A time that the wire carries; others become 0, which is: not known."""
    return time_us if 0 <= time_us < at.EXACT_LIMIT else 0


def whole(value: float) -> int:
    """A float64 that counts something; 0 when it cannot."""
    return int(value) if 0.0 <= value < at.EXACT_LIMIT else 0


def frame_of(
    entries: bytes, count: int, *, epoch: int, sequence: int, recv_us: int, delay_us: int = 0, flags: int = 0
) -> bytes:
    """One frame around finished entries."""
    covered = (
        _FIXED.pack(at.VERSION, flags, epoch, recv_us)
        + b"".join(map(varint, (sequence, count, delay_us)))
        + entries
    )
    return zlib.crc32(covered).to_bytes(4, "little") + covered


def heartbeat(epoch: int, sequence: int, wall_ns: int) -> bytes:
    """A frame without entries: nothing that this client wants lies before `sequence` and was not sent."""
    return frame_of(b"", 0, epoch=epoch, sequence=sequence, recv_us=sane_time(wall_ns // 1000))


class _Said:
    """What a frame has said of one symbol."""

    def __init__(self) -> None:
        self.bid = self.bid_quantity = self.ask = self.ask_quantity = 0
        self.number = 0
        self.event: tuple[int, int] | None = None
        """Time and flags of the last trade."""


class _Frame:
    """Entries of one frame in the making."""

    def __init__(self, grids: Grids, recv_us: int, entry_flags: int) -> None:
        self.out = bytearray()
        self.count = 0
        self._grids = grids
        self._recv_us = self._time = recv_us
        self._entry_flags = entry_flags
        self._said: dict[int, _Said] = {}
        self._symbol: int | None = None
        self._run: int | None = None
        """Where the open run's last quantity begins."""

    def add(self, row: Any, skipped: int) -> None:
        """Append one record."""
        kind = int(row["kind"])
        self.count += 1
        if kind == TRADE:
            self._trade(row)
        elif kind == QUOTE:
            self._quote(row, skipped)
        else:
            self._gap(row)

    def _tag(self, tag: int, symbol: int, extra: int) -> None:
        self._run = None
        if symbol == self._symbol:
            self.out.append(tag | at.SAME_SYMBOL)
        else:
            self.out.append(tag)
            self.out += varint(symbol)
        self._symbol = symbol
        if extra:
            self.out.append(extra)

    def _trade(self, row: Any) -> None:
        symbol, number = int(row["symbol_id"]), int(row["id"])
        said = self._said.setdefault(symbol, _Said())
        flags = int(row["flags"]) & 15 | self._entry_flags
        maker = bool(flags & at.BUYER_MAKER)
        grid = self._grids.get(symbol, (None, None))
        price = units_of(float(row["price"]), grid[0])
        quantity = units_of(float(row["quantity"]), grid[1])
        event = (sane_time(int(row["exchange_us"])), flags)
        step = wrapped(number - said.number - 1)
        continues = step == 0 and said.event == event and not flags & at.STAND_IN
        on_grid = price is not None and quantity is not None
        if continues and on_grid and self._run is not None and self._symbol == symbol:
            self.out[self._run] |= 1
        else:
            extra = flags & at.TRADE_EXTRAS | (0 if on_grid else at.OFF_GRID)
            tag = at.TAG_TRADE | at.TRADE_MAKER * maker | at.TRADE_CONTINUES * continues
            self._tag(tag | at.TRADE_EXTRA * bool(extra), symbol, extra)
            if not continues:
                self.out += signed(step) + time_from(self._time, event[0])
                self._time = event[0]
            if flags & at.STAND_IN:
                self.out += varint(whole(float(row["ask_quantity"])))
                self.out += signed(number - whole(float(row["ask"])))
        said.number, said.event = number, event
        if price is None or quantity is None:
            self.out += escape(float(row["price"])) + escape(float(row["quantity"]))
        else:
            self._item(said, maker, price, quantity)

    def _item(self, said: _Said, maker: bool, price: int, quantity: int) -> None:
        self.out += signed(price - (said.bid if maker else said.ask))
        self._run = len(self.out)
        self.out += varint(quantity << 1)
        if maker:
            said.bid, said.ask = price, said.ask if said.ask > price else price + 1
        else:
            said.bid, said.ask = said.bid if 0 != said.bid < price else price - 1, price

    def _quote(self, row: Any, skipped: int) -> None:
        symbol = int(row["symbol_id"])
        said = self._said.setdefault(symbol, _Said())
        extra = int(row["flags"]) & (at.REPAIRED | at.LATE) | self._entry_flags | at.CONFLATED * bool(skipped)
        grid = self._grids.get(symbol, (None, None))
        values = [float(row[name]) for name in ("price", "quantity", "ask", "ask_quantity")]
        bid, bid_quantity, ask, ask_quantity = (
            units_of(value, grid[place % 2]) for place, value in enumerate(values)
        )
        if bid is None or bid_quantity is None or ask is None or ask_quantity is None:
            mask, extra = at.QUOTE_VALUES, extra | at.OFF_GRID
            written = b"".join(map(escape, values))
        else:
            ask_expected = said.ask if said.ask > bid else bid + 1
            expected = (said.bid, said.bid_quantity, ask_expected, said.ask_quantity)
            found = (bid, bid_quantity, ask, ask_quantity)
            steps = [value - before for value, before in zip(found, expected, strict=True)]
            mask = sum(at.QUOTE_BID << place for place, step in enumerate(steps) if step)
            written = b"".join(signed(step) for step in steps if step)
            said.bid, said.bid_quantity, said.ask, said.ask_quantity = found
        self._tag(at.TAG_QUOTE | mask | at.QUOTE_EXTRA * bool(extra), symbol, extra)
        self.out += (varint(skipped) if skipped else b"") + written

    def _gap(self, row: Any) -> None:
        first = int(row["id"])
        payload = varint(int(row["symbol_id"])) + bytes(
            (
                self._entry_flags,
                whole(float(row["ask_quantity"])) & 255,
                whole(float(row["quantity"])) & 255,
            )
        )
        payload += varint(first) + signed(whole(float(row["ask"])) - first)
        payload += varint(whole(float(row["price"])))
        payload += time_from(self._recv_us, sane_time(int(row["exchange_us"])))
        payload += time_from(self._recv_us, sane_time(int(row["recv_ns"]) // 1000))
        self._run = None
        self.out += bytes((at.TAG_GAP, len(payload))) + payload


def _everything(kind: int, symbol_id: int) -> bool:
    return True


def _chosen(rows: Rows, wanted: Wanted, conflate: bool) -> list[tuple[int, int]]:
    """(index, quotes left out before it) of the rows that a frame shall have."""
    found = [
        index
        for index, (kind, symbol) in enumerate(
            zip(rows["kind"].tolist(), rows["symbol_id"].tolist(), strict=True)
        )
        if symbol and kind in (TRADE, QUOTE, GAP) and wanted(kind, symbol)
    ]
    if not conflate:
        return [(index, 0) for index in found]
    last: dict[int, int] = {}
    counts: dict[int, int] = {}
    for index in found:
        if rows["kind"][index] == QUOTE:
            symbol = int(rows["symbol_id"][index])
            last[symbol] = index
            counts[symbol] = counts.get(symbol, 0) + 1
    kept = {index: counts[symbol] - 1 for symbol, index in last.items()}
    return [(index, kept.get(index, 0)) for index in found if rows["kind"][index] != QUOTE or index in kept]


def encode_rows(
    rows: Rows,
    first_sequence: int,
    *,
    epoch: int,
    grids: Grids,
    wanted: Wanted = _everything,
    publish_ns: int = 0,
    frame_flags: int = 0,
    entry_flags: int = 0,
    conflate: bool = False,
) -> list[bytes]:
    """Tape rows (the first one stands at `first_sequence`) as frames; none when none of them is wanted.

    `frame_flags`: FRAME_SNAPSHOT, FRAME_REPLAY. `entry_flags`: SNAPSHOT, for all trades and quotes.
    A snapshot's rows are no stretch of the tape; give position - len(rows), so that its last frame reaches
    the position.
    """
    chosen = _chosen(rows, wanted, conflate)
    if not chosen:
        return []
    recv_us = sane_time(int(rows["recv_ns"][-1]) // 1000)
    delay_us = max(0, publish_ns // 1000 - recv_us)
    frames = []
    place = 0
    while place < len(chosen):
        frame = _Frame(grids, recv_us, entry_flags)
        while place < len(chosen) and len(frame.out) <= _BODY_FULL:
            index, skipped = chosen[place]
            frame.add(rows[index], skipped)
            place += 1
        reached = first_sequence + (chosen[place][0] if place < len(chosen) else len(rows))
        head = {"epoch": epoch, "sequence": reached, "recv_us": recv_us, "delay_us": delay_us}
        frames.append(frame_of(bytes(frame.out), frame.count, flags=frame_flags, **head))
    return frames


def enigma_frames(
    found: Iterable[EnigmaLike],
    *,
    epoch: int,
    sequence: int,
    recv_ns: int,
    publish_ns: int = 0,
    entry_flags: int = 0,
) -> list[bytes]:
    """Enigma of any number of symbols. `sequence` is the position that the client has reached anyhow."""
    recv_us = sane_time(recv_ns // 1000)
    head = {"epoch": epoch, "sequence": sequence, "recv_us": recv_us}
    head["delay_us"] = max(0, publish_ns // 1000 - recv_us)
    frames = []
    out, count = bytearray(), 0
    for enigma in found:
        payload = varint(enigma.symbol_id) + bytes([entry_flags])
        payload += struct.pack("<4d", enigma.level, enigma.ath, enigma.atl, enigma.price)
        payload += varint(enigma.trade_id) + time_from(recv_us, sane_time(enigma.exchange_us))
        if len(out) > _BODY_FULL:
            frames.append(frame_of(bytes(out), count, **head))
            out, count = bytearray(), 0
        out += bytes((at.TAG_ENIGMA, len(payload))) + payload
        count += 1
    if count:
        frames.append(frame_of(bytes(out), count, **head))
    return frames
