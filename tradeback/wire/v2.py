"""The feed's frame, version 2: exact, complete, resumable, small. The specification is docs/wire.md.

Decoding: `Decoder`. Encoding: the engine uses `wire.v2_kernel`; single frames are made by
`wire.v2_encode` (`encode_rows`, `heartbeat`, `enigma_frames`).
"""

import struct
import zlib
from decimal import Decimal
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tradeback.wire import v2_frame as frame
from tradeback.wire import v2_layout as at
from tradeback.wire.v2_decode import Reader, decode_entries
from tradeback.wire.v2_frame import Frame, WireError, refused

_FIXED = struct.Struct("<IBBIQ")
_BYTES_MIN: Final = at.HEADER_FIXED_BYTES + 3


class Decoder:
    """Frames of one connection to numpy arrays. Holds the symbols' grids and nothing of earlier frames."""

    def __init__(self, *, check_crc: bool = True) -> None:
        self.grids: dict[int, tuple[int, int]] = {}
        """Symbol id -> decimals of price and quantity. Change it by `learn`."""
        self._check_crc = check_crc
        self._fast: _Fast | None = None

    def learn(self, symbol_id: int, price_digits: int, quantity_digits: int) -> None:
        """Note a grid, as the `subscribed` answer tells it. ValueError when it cannot be one."""
        if not 0 < symbol_id < at.SYMBOL_IDS:
            raise ValueError(f"symbol id {symbol_id} is outside 1..65535")
        for digits in (price_digits, quantity_digits):
            if not 0 <= digits <= at.DIGITS_MAX:
                raise ValueError(f"a grid has 0 to {at.DIGITS_MAX} decimals, not {digits}")
        self.grids[symbol_id] = (price_digits, quantity_digits)
        if self._fast is not None:
            self._fast.learn(symbol_id, price_digits, quantity_digits)

    def accelerate(self) -> bool:
        """Decode by the compiled kernel from now on, ten to fifty times faster; False without numba.

        Imports numba and, the first time ever, compiles for some seconds: call it in a thread.
        """
        if self._fast is not None:
            return True
        try:
            fast = _Fast()
        except ImportError:
            return False
        for symbol_id, digits in self.grids.copy().items():
            fast.learn(symbol_id, *digits)
        self._fast = fast
        for symbol_id, digits in self.grids.copy().items():  # those that came in between
            fast.learn(symbol_id, *digits)
        return True

    def decode(self, payload: bytes) -> Frame:
        """One binary message. WireError when it is damaged, of another version, or cannot be read."""
        size = len(payload)
        if not _BYTES_MIN <= size <= at.FRAME_BYTES_MAX:
            raise WireError(f"a v2 frame has {_BYTES_MIN} to {at.FRAME_BYTES_MAX} bytes, not {size}")
        crc, version, flags, epoch, recv_us = _FIXED.unpack_from(payload)
        if version != at.VERSION:
            raise WireError(f"a frame of version {version}, not {at.VERSION}")
        if self._check_crc and zlib.crc32(memoryview(payload)[4:]) != crc:
            raise WireError("the CRC of a v2 frame differs: damaged on the way")
        if recv_us >= at.EXACT_LIMIT:
            raise refused(frame.RANGE)
        sequence, place = _varint(payload, at.HEADER_FIXED_BYTES)
        count, place = _varint(payload, place)
        delay_us, place = _varint(payload, place)
        if count > size - place:
            raise refused(frame.COUNT)
        head = (epoch, sequence, flags, count, recv_us, delay_us)
        if count == 0 and place == size:
            return Frame(*head, frame.NO_TRADES, frame.NO_QUOTES, frame.NO_GAPS, frame.NO_ENIGMA, 0)
        if self._fast is not None:
            return self._fast.decode(payload, place, head)
        found = decode_entries(Reader(payload, place, size), count, recv_us, self.grids)
        trades: NDArray[np.void] = np.array(found.trades, frame.TRADES)
        trades["flags"] = found.trade_flags
        return Frame(
            *head,
            trades,
            np.array(found.quotes, frame.QUOTES),
            np.array(found.gaps, frame.GAPS),
            np.array(found.enigma, frame.ENIGMA),
            found.unknown,
        )


def _varint(payload: bytes, place: int) -> tuple[int, int]:
    """A number of the header, and the place behind it."""
    value = shift = 0
    for byte in payload[place : place + 10]:
        place += 1
        if byte < 128:
            value |= byte << shift
            if value >> 64:
                break
            return value, place
        value |= (byte & 127) << shift
        shift += 7
    raise refused(frame.VARINT if shift > 62 else frame.CUT)


class _Fast:
    """The kernel's memory. Its output arrays are used again; what is handed out is a copy."""

    def __init__(self) -> None:
        from tradeback.kernel.jit import entry
        from tradeback.wire import v2_decode_kernel as kernel

        self._kernel = kernel
        self._call = entry(kernel.decode_entries_kernel)
        self._input: NDArray[np.uint8] = np.zeros(at.FRAME_BYTES_MAX, np.uint8)
        self._states: NDArray[np.int64] = np.zeros((at.SYMBOL_IDS, kernel.STATE_WORDS), np.int64)
        self._powers: NDArray[np.float64] = np.array([10.0**digits for digits in range(at.DIGITS_MAX + 1)])
        self._out = [
            np.zeros(at.FRAME_BYTES_MAX, dtype)
            for dtype in (frame.TRADES, frame.QUOTES, frame.GAPS, frame.ENIGMA)
        ]
        context: NDArray[np.int64] = np.zeros(kernel.CONTEXT_WORDS, np.int64)
        for word, array in zip(
            (kernel.TRADES_OUT, kernel.QUOTES_OUT, kernel.GAPS_OUT, kernel.ENIGMA_OUT), self._out, strict=True
        ):
            context[word] = array.ctypes.data
        context[kernel.STATES] = self._states.ctypes.data
        context[kernel.POWERS] = self._powers.ctypes.data
        self._context = context
        self._context_address = int(context.ctypes.data)
        self._input_address = int(self._input.ctypes.data)
        self._words: Any = context.data
        self._bytes: Any = self._input.data
        self._dtypes = [array.dtype for array in self._out]
        self._views: list[Any] = [array.view(np.uint8).data for array in self._out]

    def learn(self, symbol_id: int, price_digits: int, quantity_digits: int) -> None:
        """Note a grid."""
        kernel, state = self._kernel, self._states[symbol_id]
        state[kernel.STATE_PRICE_DIGITS] = price_digits
        state[kernel.STATE_QUANTITY_DIGITS] = quantity_digits
        state[kernel.STATE_KNOWN] = 1

    def decode(self, payload: bytes, place: int, head: tuple[int, int, int, int, int, int]) -> Frame:
        """The entries from `place` on."""
        kernel, words, size = self._kernel, self._words, len(payload)
        self._bytes[:size] = payload
        words[kernel.END] = self._input_address + size
        words[kernel.LIMIT] = head[3]
        words[kernel.RECV_US] = head[4]
        code = self._call(self._context_address, self._input_address + place)
        if code:
            raise refused(code)
        trades, quotes, gaps, enigma = words[kernel.TRADE_COUNT : kernel.ENIGMA_COUNT + 1].tolist()
        return Frame(
            *head,
            self._copy(0, trades) if trades else frame.NO_TRADES,
            self._copy(1, quotes) if quotes else frame.NO_QUOTES,
            self._copy(2, gaps) if gaps else frame.NO_GAPS,
            self._copy(3, enigma) if enigma else frame.NO_ENIGMA,
            head[3] - trades - quotes - gaps - enigma,
        )

    def _copy(self, kind: int, count: int) -> frame.Array:
        """The first `count` rows of an output, as an array of their own; numpy's own copy takes 7 us more."""
        dtype = self._dtypes[kind]
        copied: frame.Array = np.frombuffer(bytearray(self._views[kind][: count * dtype.itemsize]), dtype)
        return copied


def exact(units: int, digits: int) -> Decimal:
    """The decimal that was sent: `exact(row["price_units"], row["price_digits"])`.

    With DIGITS_BITS it is the float64 whose bits they are.
    """
    if digits == at.DIGITS_BITS:
        return Decimal(struct.unpack("<d", struct.pack("<q", int(units)))[0])
    return Decimal(int(units)).scaleb(-int(digits))
