"""The golden vectors of v2: `python -m tests.wire.v2_vectors` writes vectors_v2.json anew.

Only to be done when the format itself changes: the vectors say what every decoder in the field does.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any, Final

from tradeback.derive.enigma import Enigma
from tradeback.model.record import GAP, LATE, QUOTE, REPAIRED, STAND_IN, TRADE, Rows, empty_rows
from tradeback.wire import v2_layout as at
from tradeback.wire.v2 import Decoder
from tradeback.wire.v2_encode import encode_rows, enigma_frames, frame_of, heartbeat
from tradeback.wire.v2_frame import Array, Frame

PATH: Final = Path(__file__).parent / "vectors_v2.json"
EPOCH: Final = 0x9F3C21AA
GRIDS: Final = {1: (2, 5), 2: (2, 4), 300: (8, 0)}
RECV_US: Final = 1_723_161_254_087_891
TIME_US: Final = RECV_US - RECV_US % 1000 - 12_000

Fields = dict[str, float]


def plain(frame: Frame) -> dict[str, Any]:
    """A frame as JSON can say it. Floats that JSON has no word for, and large integers, are strings."""
    head = {name: getattr(frame, name) for name in ("epoch", "sequence", "flags", "count")}
    head |= {"recv_us": frame.recv_us, "delay_us": frame.delay_us, "unknown": frame.unknown}
    kinds = {"trades": frame.trades, "quotes": frame.quotes, "gaps": frame.gaps, "enigma": frame.enigma}
    return head | {name: _listed(array) for name, array in kinds.items()}


def _listed(array: Array) -> list[dict[str, Any]]:
    names = array.dtype.names or ()
    return [{name: _said(value) for name, value in zip(names, row, strict=True)} for row in array.tolist()]


def _said(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return str(value) if isinstance(value, int) and abs(value) >= 1 << 53 else value


def trade(number: int, price: float, quantity: float, **more: float) -> Fields:
    """A trade of symbol 1."""
    made: Fields = {"kind": TRADE, "symbol_id": 1, "id": number, "exchange_us": TIME_US}
    return made | {"price": price, "quantity": quantity} | more


def quote(bid: float, bid_quantity: float, ask: float, ask_quantity: float, **more: float) -> Fields:
    """A quote of symbol 1."""
    made: Fields = {"kind": QUOTE, "symbol_id": 1, "price": bid, "quantity": bid_quantity}
    return made | {"ask": ask, "ask_quantity": ask_quantity} | more


def gap(first: int, last: int, missing: int, state: int, **more: float) -> Fields:
    """A gap in the trades of symbol 1."""
    made: Fields = {"kind": GAP, "symbol_id": 1, "id": first, "ask": last, "price": missing}
    return made | {"quantity": state, "ask_quantity": TRADE, "exchange_us": TIME_US, "flags": 192} | more


def rows_of(listed: list[Fields]) -> Rows:
    """Tape rows."""
    rows = empty_rows(len(listed))
    for row, fields in zip(rows, listed, strict=True):
        row["recv_ns"] = RECV_US * 1000
        for name, value in fields.items():
            row[name] = value
    return rows


def _batches() -> dict[str, tuple[list[Fields], dict[str, Any]]]:
    sweep = [trade(3_735_683_259 + place, 61_837.63 + place // 2 / 100, 0.02) for place in range(4)]
    late = {"flags": REPAIRED | LATE, "exchange_us": TIME_US - 86_400_000_123}
    stand_in = {"flags": STAND_IN | LATE, "ask": 3_735_683_100, "ask_quantity": 7}
    return {
        "one trade": ([trade(3_735_683_259, 61_837.63, 0.02, flags=1)], {}),
        "a sweep is one run": (sweep, {}),
        "a run, a quote between, and on": (
            [*sweep[:2], quote(61_837.62, 3.78826, 61_837.64, 1.54698), *sweep[2:]],
            {},
        ),
        "quotes of which only quantities change": (
            [
                quote(61_837.63, 3.78826, 61_837.64, 1.54698),
                quote(61_837.63, 3.7, 61_837.64, 1.54698),
                quote(61_837.63, 3.7, 61_837.64, 1.54698),
                quote(61_837.63, 3.7, 61_837.66, 2.0),
            ],
            {},
        ),
        "symbols by turns": (
            [
                trade(10, 61_837.63, 0.02),
                trade(1 << 40, 0.00001234, 1_500_000.0, symbol_id=300, exchange_us=TIME_US + 1_234),
                quote(3_120.0, 12.5, 3_120.01, 0.0001, symbol_id=2),
                trade(11, 61_837.62, 0.5, flags=1),
            ],
            {},
        ),
        "off the grid": (
            [
                trade(5, 61_837.635, 0.02),
                trade(6, 61_837.63, 0.1 + 0.2),
                quote(float("nan"), -1.0, 1e300, 0.123456789),
                trade(7, 61_837.63, 0.02),
            ],
            {},
        ),
        "repaired, late, stand-in": (
            [trade(3_735_683_100, 61_000.0, 1.0, **late), trade(3_735_683_106, 61_000.1, 4.0, **stand_in)],
            {},
        ),
        "ids and times at their ends": (
            [trade((1 << 53) - 1, 0.0, 0.0, exchange_us=0), trade(1, 0.01, 45_035_996_273.70494)],
            {},
        ),
        "snapshot": (
            [trade(9, 61_837.63, 0.02), quote(61_837.63, 3.78826, 61_837.64, 1.54698)],
            {"entry_flags": at.SNAPSHOT, "frame_flags": at.FRAME_SNAPSHOT},
        ),
        "caught up: quotes conflated": (
            [
                *(quote(61_837.63, 1.0 + place, 61_837.64, 1.0) for place in range(5)),
                trade(9, 61_837.63, 2.0),
            ],
            {"conflate": True, "frame_flags": at.FRAME_REPLAY},
        ),
        "gap opened and repaired": (
            [gap(100, 149, 50, 1), gap(100, 149, 0, 2), gap(200, 200, 1, 3, exchange_us=TIME_US + 7)],
            {},
        ),
    }


def _refused() -> dict[str, tuple[bytes, str]]:
    head = {"epoch": EPOCH, "sequence": 9, "recv_us": RECV_US}
    good = frame_of(b"", 0, **head)
    return {
        "damaged": (good[:-1] + b"\1", "CRC"),
        "too short": (good[:20], "bytes"),
        "another version": (b"\0\0\0\0\3" + good[5:], "version 3"),
        "no symbol before": (frame_of(b"\5", 1, **head), "names no symbol"),
        "unknown symbol": (frame_of(b"\1\4", 1, **head), "not in the table"),
        "reserved bit": (frame_of(b"\x40\1", 1, **head), "reserved bit"),
        "cut": (frame_of(b"\x79\1\2", 1, **head), "behind the frame's end"),
        "wrong count": (frame_of(b"\1\1\5", 3, **head), "counts other entries"),
        "below zero": (frame_of(b"\x09\1\1", 1, **head), "outside the grid"),
        "endless number": (frame_of(b"\x09\1" + b"\xff" * 10, 1, **head), "64 bits"),
        "continues nothing": (frame_of(b"\x10\1\2\2", 1, **head), "continues an event"),
        "too many digits": (frame_of(b"\xf9\1\x40\x17\0\0\0\0\0\0\0", 1, **head), "more digits"),
    }


def make() -> dict[str, Any]:
    """All vectors."""
    decoder = Decoder()
    for symbol_id, digits in GRIDS.items():
        decoder.learn(symbol_id, *digits)
    made: list[tuple[str, bytes]] = [("heartbeat", heartbeat(EPOCH, 1 << 40, RECV_US * 1000))]
    for name, (listed, how) in _batches().items():
        payloads = encode_rows(
            rows_of(listed),
            1_000_000_007,
            epoch=EPOCH,
            grids=GRIDS,
            publish_ns=RECV_US * 1000 + 42_999,
            **how,
        )
        made += [(name, payload) for payload in payloads]
    enigma = Enigma(300, 56.5614889350518, 92_695.46, 27_207.58, 64_248.5, (), 3_895_427_039, TIME_US)
    made += [
        ("enigma", payload)
        for payload in enigma_frames([enigma], epoch=EPOCH, sequence=77, recv_ns=RECV_US * 1000)
    ]
    later = frame_of(
        b"\x0a\3abc" + b"\1\1" + b"\xff\0", 3, epoch=EPOCH, sequence=5, recv_us=RECV_US, flags=0x80
    )
    frames: list[dict[str, Any]] = [
        {"name": name, "hex": payload.hex(), "meaning": plain(decoder.decode(payload))}
        for name, payload in [*made, ("kinds and flags of later versions", later)]
    ]
    frames += [
        {"name": name, "hex": payload.hex(), "refused": reason}
        for name, (payload, reason) in _refused().items()
    ]
    return {"grids": {str(symbol_id): digits for symbol_id, digits in GRIDS.items()}, "frames": frames}


if __name__ == "__main__":
    PATH.write_text(json.dumps(make(), indent=1) + "\n", "utf-8")
    sys.stdout.write(f"{PATH.name} written\n")
