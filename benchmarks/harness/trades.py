"""Trade frames of fixed size whose digits the C sender fills in, and the symbols they are for.

A trade's price says its number (so that losses, doubles and changed order show) and its quantity says
when it was sent (so that it reaches the subscriber inside the v1 entry). Both survive float64 exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.native import Ints, Layout

FIRST_ID = 1_000_000_000
"""Id of the first trade of every symbol: 10 digits."""
PRICE_STEPS, PRICE_STRIDE = 1_000_000, 7_919
STAMP_OFFSET = 1_000_000_000_000
"""As in wire_ends.h."""
NAMED = ("BTC", "ETH", "BNB", "SOL", "XRP", "ADA", "TRX", "DOT", "LTC", "UNI")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
QUANTITY_AT_START = "10000.00000000"


def symbol_names(count: int) -> list[str]:
    """`count` symbols of seven letters, so that all frames have one size."""
    if count > 10_000:
        raise ValueError("at most 10,000 symbols")
    names = list(NAMED)
    number = 0
    while len(names) < count:
        base = "".join(LETTERS[number // 26**power % 26] for power in (2, 1, 0))
        number += 1
        if base not in NAMED:
            names.append(base)
    return [f"{base}USDT" for base in names[:count]]


def ws_header(size: int, opcode: int = 1) -> bytes:
    """Header of an unmasked, final WebSocket frame in its shortest form."""
    if size < 126:
        return bytes((0x80 | opcode, size))
    if size < 65_536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big")
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big")


def ws_text(payload: str) -> bytes:
    """A whole text frame as a server sends it."""
    body = payload.encode()
    return ws_header(len(body)) + body


def trade_frame(symbol: str, trade_id: int, time_us: int) -> bytes:
    """One trade of the combined stream, with the exchange's own key order and padding."""
    return ws_text(
        f'{{"stream":"{symbol.lower()}@trade","data":{{"e":"trade","E":{time_us},"s":"{symbol}","t":{trade_id},'
        f'"p":"60000.00000000","q":"{QUANTITY_AT_START}","T":{time_us},"m":false,"M":true}}}}'
    )


@dataclass(frozen=True)
class TradeFrames:
    """One frame per symbol, one after the other, and where their digits stand."""

    symbols: tuple[str, ...]
    frames: bytes
    layout: Layout

    @property
    def frame_bytes(self) -> int:
        """Size of every frame, header included."""
        return int(self.layout.frame_bytes)


def trade_frames(symbols: Sequence[str]) -> TradeFrames:
    """The frames for the C sender. Raises ValueError when the symbols differ in length."""
    frames = [trade_frame(symbol, FIRST_ID, 1_700_000_000_000_000) for symbol in symbols]
    sizes = {len(frame) for frame in frames}
    if len(sizes) != 1:
        raise ValueError("symbols of one length are needed, so that frames have one size")
    sample = frames[0]

    def after(key: bytes) -> int:
        return sample.index(key) + len(key)

    layout = Layout(
        frame_bytes=len(sample), symbols=len(frames), first_id=FIRST_ID, id_at=after(b'"t":'),
        price_at=after(b'"p":"'), quantity_at=after(b'"q":"'),
        event_at=after(b'"E":'), match_at=after(b'"T":'),
    )  # fmt: skip
    return TradeFrames(tuple(symbols), b"".join(frames), layout)


def price_steps(first: int, count: int) -> Ints:
    """Cents above 60000.00 of trades number first.. : what a receiver must see."""
    return (np.arange(first, first + count, dtype=np.int64) * PRICE_STRIDE) % PRICE_STEPS
