"""What a decoded v2 frame is: its header, arrays of what it brought, and the error of one that is none.

Values come twice: as the float64 that the tape holds (`price`), and as the exact decimal that was sent,
`price_units` * 10^-`price_digits`. Where digits are DIGITS_BITS (255) the units are the bits of the float64.
`place` counts the entries of a frame from 0, through all kinds: their order on the tape.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tradeback.model.errors import DecodeError

TRADES: Final = np.dtype(
    [
        ("id", "<i8"),
        ("exchange_us", "<i8"),
        ("price", "<f8"),
        ("quantity", "<f8"),
        ("price_units", "<i8"),
        ("quantity_units", "<i8"),
        ("first_id", "<i8"),
        ("stands_for", "<u4"),
        ("symbol_id", "<u2"),
        ("place", "<u2"),
        ("flags", "u1"),
        ("price_digits", "u1"),
        ("quantity_digits", "u1"),
    ],
    align=True,
)
"""`first_id` is `id` and `stands_for` 1, but in a stand-in: its first missing id, and how many it stands for.
`exchange_us` 0: not known."""

QUOTES: Final = np.dtype(
    [
        ("bid", "<f8"),
        ("bid_quantity", "<f8"),
        ("ask", "<f8"),
        ("ask_quantity", "<f8"),
        ("bid_units", "<i8"),
        ("bid_quantity_units", "<i8"),
        ("ask_units", "<i8"),
        ("ask_quantity_units", "<i8"),
        ("skipped", "<u4"),
        ("symbol_id", "<u2"),
        ("place", "<u2"),
        ("flags", "u1"),
        ("bid_digits", "u1"),
        ("bid_quantity_digits", "u1"),
        ("ask_digits", "u1"),
        ("ask_quantity_digits", "u1"),
    ],
    align=True,
)
"""`skipped`: quotes of the symbol that were left out before this one, because the client read too slowly."""

GAPS: Final = np.dtype(
    [
        ("first_id", "<i8"),
        ("last_id", "<i8"),
        ("missing", "<i8"),
        ("exchange_us", "<i8"),
        ("noted_us", "<i8"),
        ("symbol_id", "<u2"),
        ("place", "<u2"),
        ("stream", "u1"),
        ("state", "u1"),
        ("flags", "u1"),
    ],
    align=True,
)
"""`stream`: the tape's kind (1 trade, 3 aggTrade); `state`: GAP_OPEN ...; `missing`: ids still missing."""

ENIGMA: Final = np.dtype(
    [
        ("level", "<f8"),
        ("ath", "<f8"),
        ("atl", "<f8"),
        ("price", "<f8"),
        ("trade_id", "<i8"),
        ("exchange_us", "<i8"),
        ("symbol_id", "<u2"),
        ("place", "<u2"),
        ("flags", "u1"),
    ],
    align=True,
)

GAP_OPEN, GAP_REPAIRED, GAP_UNREPAIRABLE = 1, 2, 3

Array = NDArray[np.void]
"""A structured array of one of the dtypes above."""

CUT: Final = 1
VARINT: Final = 2
NO_SYMBOL: Final = 3
UNKNOWN_SYMBOL: Final = 4
RESERVED: Final = 5
NO_TRADE: Final = 6
RANGE: Final = 7
COUNT: Final = 8
DIGITS: Final = 9
REASONS: Final = {
    CUT: "an entry ends behind the frame's end",
    VARINT: "a number has more than 64 bits",
    NO_SYMBOL: "the first entry names no symbol",
    UNKNOWN_SYMBOL: "a symbol is not in the table: subscribe again",
    RESERVED: "a reserved bit is set: made by a newer version",
    NO_TRADE: "a trade continues an event that the frame does not have",
    RANGE: "a value is outside the grid",
    COUNT: "the header counts other entries than there are",
    DIGITS: "an escape has more digits than there are",
}
"""Why a frame with a good CRC may still be refused: a fault of whoever made it, or a missing symbol."""


class WireError(DecodeError):
    """These bytes are no v2 frame that can be read: `code` is one of REASONS, or 0 (header, CRC)."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


def refused(code: int) -> WireError:
    """The error for a reason."""
    return WireError(f"a v2 frame that cannot be read: {REASONS[code]}", code)


@dataclass(slots=True)
class Frame:
    """One decoded frame. `(epoch, sequence)` is the position to resume from once it has been used.

    (Not frozen: that would triple the time it takes to make one.)
    """

    epoch: int
    sequence: int
    flags: int
    count: int
    recv_us: int
    """When the newest record of its batch came from the exchange, us since 1970 by the server's clock."""
    delay_us: int
    """From then until the frame was made for sending; means nothing with FRAME_REPLAY or FRAME_SNAPSHOT."""
    trades: Array
    quotes: Array
    gaps: Array
    enigma: Array
    unknown: int
    """Entries of kinds that this decoder does not know; they were skipped."""

    @property
    def is_heartbeat(self) -> bool:
        """True when it brought a position and nothing else."""
        return self.count == 0


def empty(dtype: np.dtype[np.void]) -> Array:
    """No entries of a kind."""
    made: Array = np.zeros(0, dtype)
    made.flags.writeable = False
    return made


NO_TRADES: Final = empty(TRADES)
NO_QUOTES: Final = empty(QUOTES)
NO_GAPS: Final = empty(GAPS)
NO_ENIGMA: Final = empty(ENIGMA)

assert (TRADES.itemsize, QUOTES.itemsize, GAPS.itemsize, ENIGMA.itemsize) == (72, 80, 48, 56)
