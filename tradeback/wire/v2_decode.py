"""Wire v2, the entries of a frame in plain Python: for clients without numba, and the kernel's oracle."""

import struct
from dataclasses import dataclass, field
from typing import Any, Final

from tradeback.wire import v2_layout as at
from tradeback.wire.v2_encode import Grids, wrapped
from tradeback.wire.v2_frame import (
    COUNT,
    CUT,
    DIGITS,
    NO_SYMBOL,
    NO_TRADE,
    RANGE,
    RESERVED,
    UNKNOWN_SYMBOL,
    VARINT,
    refused,
)

POWERS: Final = tuple(10.0**digits for digits in range(at.DIGITS_MAX + 1))
_F64 = struct.Struct("<d")
_I64 = struct.Struct("<q")
_ENIGMA = struct.Struct("<4d")

Value = tuple[float, int, int]
"""float64, units, digits."""


@dataclass(slots=True)
class Entries:
    """What a frame holds; each row has the fields of its dtype, in order (`flags` of trades apart)."""

    trades: list[tuple[Any, ...]] = field(default_factory=list)
    trade_flags: list[int] = field(default_factory=list)
    quotes: list[tuple[Any, ...]] = field(default_factory=list)
    gaps: list[tuple[Any, ...]] = field(default_factory=list)
    enigma: list[tuple[Any, ...]] = field(default_factory=list)
    unknown: int = 0

    @property
    def count(self) -> int:
        """All of them."""
        return len(self.trades) + len(self.quotes) + len(self.gaps) + len(self.enigma) + self.unknown


class Reader:
    """A cursor over bytes that never reads behind their end; WireError(CUT) instead."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self.data = data
        self.place = start
        self.end = end

    def byte(self) -> int:
        """One byte."""
        if self.place >= self.end:
            raise refused(CUT)
        self.place += 1
        return self.data[self.place - 1]

    def take(self, size: int) -> bytes:
        """So many bytes."""
        if size > self.end - self.place:
            raise refused(CUT)
        self.place += size
        return self.data[self.place - size : self.place]

    def varint(self) -> int:
        """An unsigned number of up to 64 bits."""
        value = shift = 0
        while True:
            byte = self.byte()
            if shift == 63 and byte > 1:
                raise refused(VARINT)
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def signed(self) -> int:
        """An int64."""
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def time(self, base_us: int) -> int:
        """A time in us, given as distance from another."""
        value = self.varint()
        distance = value >> 2 ^ -(value >> 1 & 1)
        time_us = base_us - distance if value & 1 else (base_us // 1000 - distance) * 1000
        if not 0 <= time_us < at.EXACT_LIMIT:
            raise refused(RANGE)
        return time_us

    def escape(self) -> Value:
        """A value beside the grid."""
        digits = self.byte()
        if digits == at.DIGITS_BITS:
            bits = self.take(8)
            return _F64.unpack(bits)[0], _I64.unpack(bits)[0], digits
        if digits > at.DIGITS_MAX:
            raise refused(DIGITS)
        units = self.varint()
        if units >= at.EXACT_LIMIT:
            raise refused(RANGE)
        return units / POWERS[digits], units, digits


class _Said:
    """What the frame has said of one symbol, and its grid."""

    def __init__(self, grid: tuple[int, int]) -> None:
        self.price_digits, self.quantity_digits = grid
        self.values = [0, 0, 0, 0]
        """Bid, its quantity, ask, its quantity."""
        self.number = 0
        self.time_us = -1
        self.trade = -1
        """Index of the symbol's last trade in the frame."""


class _Decoder:
    def __init__(self, reader: Reader, count: int, recv_us: int, grids: Grids) -> None:
        self.found = Entries()
        self._count = count
        self._reader = reader
        self._recv_us = self._time_us = recv_us
        self._grids = grids
        self._said: dict[int, _Said] = {}
        self._symbol = 0

    def entry(self) -> None:
        """Read one entry; a run of trades is one."""
        tag = self._reader.byte()
        if tag & at.TAG_LONG:
            self._long(tag)
        elif tag & at.TAG_QUOTE:
            self._quote(tag)
        else:
            self._trade(tag)

    def _place(self) -> int:
        """Place of the entry that comes next, if the header counts it."""
        place = self.found.count
        if place >= self._count:
            raise refused(COUNT)
        return place

    def _said_of(self, tag: int) -> _Said:
        if not tag & at.SAME_SYMBOL:
            self._symbol = self._reader.varint()
        elif not self._symbol:
            raise refused(NO_SYMBOL)
        said = self._said.get(self._symbol)
        if said is None:
            grid = self._grids.get(self._symbol)
            if grid is None:
                raise refused(UNKNOWN_SYMBOL)
            said = self._said[self._symbol] = _Said(grid)
        return said

    def _extra(self, wanted: int, known: int) -> int:
        extra = self._reader.byte() if wanted else 0
        if extra & ~known:
            raise refused(RESERVED)
        return extra

    def _trade(self, tag: int) -> None:
        if tag & at.TRADE_RESERVED:
            raise refused(RESERVED)
        reader, said, found = self._reader, self._said_of(tag), self.found
        flags = self._extra(tag & at.TRADE_EXTRA, at.TRADE_EXTRAS)
        if tag & at.TRADE_MAKER:
            flags |= at.BUYER_MAKER
        if tag & at.TRADE_CONTINUES:
            if said.time_us < 0:
                raise refused(NO_TRADE)
            said.number = wrapped(said.number + 1)
            found.trade_flags[said.trade] &= ~at.LAST
        else:
            said.number = wrapped(said.number + 1 + reader.signed())
            said.time_us = self._time_us = reader.time(self._time_us)
        first, stands_for = said.number, 1
        if flags & at.STAND_IN:
            stands_for = reader.varint() & 0xFFFFFFFF
            first = wrapped(said.number - reader.signed())
        if flags & at.OFF_GRID:
            self._place()
            price, quantity = reader.escape(), reader.escape()
            self._add_trade(said, flags | at.LAST, price, quantity, first, stands_for)
            return
        more = True
        while more:
            price, quantity, more = self._item(said, flags & at.BUYER_MAKER)
            self._add_trade(said, flags if more else flags | at.LAST, price, quantity, first, stands_for)
            if more:
                said.number = first = wrapped(said.number + 1)
                stands_for = 1

    def _item(self, said: _Said, maker: int) -> tuple[Value, Value, bool]:
        values = said.values
        units = _checked(values[0 if maker else 2] + self._reader.signed())
        if maker:
            values[0], values[2] = units, values[2] if values[2] > units else units + 1
        else:
            values[0], values[2] = values[0] if 0 != values[0] < units else units - 1, units
        packed = self._reader.varint()
        quantity = _checked(packed >> 1)
        digits = said.price_digits, said.quantity_digits
        return (
            (units / POWERS[digits[0]], units, digits[0]),
            (quantity / POWERS[digits[1]], quantity, digits[1]),
            bool(packed & 1),
        )

    def _add_trade(
        self, said: _Said, flags: int, price: Value, quantity: Value, first: int, stands_for: int
    ) -> None:
        found, place = self.found, self._place()
        said.trade = len(found.trades)
        values = (price[0], quantity[0], price[1], quantity[1], first, stands_for)
        digits = (price[2], quantity[2])
        found.trades.append((said.number, said.time_us, *values, self._symbol, place, 0, *digits))
        found.trade_flags.append(flags)

    def _quote(self, tag: int) -> None:
        reader, said, found = self._reader, self._said_of(tag), self.found
        flags = self._extra(tag & at.QUOTE_EXTRA, at.QUOTE_EXTRAS)
        skipped = reader.varint() & 0xFFFFFFFF if flags & at.CONFLATED else 0
        order = self._place()
        if flags & at.OFF_GRID:
            if tag & at.QUOTE_VALUES != at.QUOTE_VALUES:
                raise refused(RESERVED)
            floats, units, digits = zip(*(reader.escape() for _ in range(4)), strict=True)
        else:
            values = said.values
            for place in range(4):
                if place == 2 and values[2] <= values[0]:
                    values[2] = values[0] + 1
                if tag & at.QUOTE_BID << place:
                    values[place] += reader.signed()
                _checked(values[place])
            digits = (said.price_digits, said.quantity_digits) * 2
            units = tuple(values)
            floats = tuple(value / POWERS[scale] for value, scale in zip(units, digits, strict=True))
        found.quotes.append((*floats, *units, skipped, self._symbol, order, flags, *digits))

    def _long(self, tag: int) -> None:
        reader, found = self._reader, self.found
        size = reader.varint()
        start = reader.place
        reader.take(size)
        body = Reader(reader.data, start, reader.place)
        place = self._place()
        if tag == at.TAG_GAP:
            symbol, flags, stream, state = body.varint(), body.byte(), body.byte(), body.byte()
            first = wrapped(body.varint())
            last = wrapped(first + body.signed())
            missing = wrapped(body.varint())
            times = body.time(self._recv_us), body.time(self._recv_us)
            found.gaps.append((first, last, missing, *times, _symbol(symbol), place, stream, state, flags))
        elif tag == at.TAG_ENIGMA:
            symbol, flags = body.varint(), body.byte()
            levels = _ENIGMA.unpack(body.take(_ENIGMA.size))
            number = wrapped(body.varint())
            time_us = body.time(self._recv_us)
            found.enigma.append((*levels, number, time_us, _symbol(symbol), place, flags))
        else:
            found.unknown += 1


def _checked(units: int) -> int:
    if not 0 <= units < at.UNITS_LIMIT:
        raise refused(RANGE)
    return units


def _symbol(number: int) -> int:
    if not 0 < number < at.SYMBOL_IDS:
        raise refused(UNKNOWN_SYMBOL)
    return number


def decode_entries(reader: Reader, count: int, recv_us: int, grids: Grids) -> Entries:
    """Everything from the reader's place to its end. WireError with a code of REASONS when it cannot be."""
    decoder = _Decoder(reader, count, recv_us, grids)
    while reader.place < reader.end:
        decoder.entry()
    if decoder.found.count != count:
        raise refused(COUNT)
    return decoder.found
