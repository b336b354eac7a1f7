"""Klines: the kernel against Python's JSON and decimals, on answers of an exchange and on damaged ones."""

import json
import random
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.derive import klines
from tradeback.derive.kline_kernel import REFUSED, read_klines
from tradeback.derive.layout import BAR, EXCHANGE, NO_FIRST_ID, NO_ID
from tradeback.sim.text import decimal8

PLAIN = [1_781_000_000_000, "1.50", "2.00", "0.5", "1.25", "10", 1_781_000_059_999, "12", 3, "5", "6", "0"]


def text_of(rows: list[list[Any]]) -> bytes:
    """As the exchange writes: no blanks."""
    return json.dumps(rows, separators=(",", ":")).encode()


def kernel_only(body: bytes, lot_digits: int) -> "np.ndarray[Any, Any] | None":
    """What the kernel takes by itself; None when it refuses."""
    bars = np.zeros(body.count(b"[") + 1, BAR)
    source = np.frombuffer(body + b"\0", np.uint8)
    count = read_klines(source.ctypes.data, len(body), bars.ctypes.data, len(bars), lot_digits)
    return None if count == REFUSED else bars[:count]


digits = st.text("0123456789", min_size=1, max_size=12)
decimals = st.one_of(
    st.decimals(0, 10**9, places=8, allow_nan=False).map(lambda value: f"{value:.8f}"),
    st.builds("{}.{}".format, digits, digits),
    digits,
)
times = st.integers(0, 10**15)
entries = st.tuples(
    times, decimals, decimals, decimals, decimals, decimals, times, decimals, st.integers(0, 10**12),
    decimals, decimals, st.just("0"),
).map(list)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(entries, max_size=4), st.integers(0, 8))
def test_the_kernel_reads_what_python_reads(rows: list[list[Any]], lot_digits: int) -> None:
    body = text_of(rows)
    try:
        expected = klines.read_slowly(body, lot_digits)
    except ValueError:
        assert kernel_only(body, lot_digits) is None
        return
    found = klines.read(body, lot_digits)
    assert found.tobytes() == expected.tobytes()
    for bar, row in zip(found, rows, strict=True):
        assert bar["slot_us"] == row[0] * 1_000
        assert [bar[name] for name in ("open", "high", "low", "close")] == [
            float(row[n]) for n in (1, 2, 3, 4)
        ]
        for name, place in (("volume", 5), ("taker_volume", 9)):
            exact = Decimal(row[place]).scaleb(lot_digits).quantize(Decimal(1), ROUND_HALF_EVEN)
            assert int(bar[name]) == exact
        assert (bar["trade_count"], bar["seed_count"]) == (row[8], row[8])
        assert (bar["flags"], bar["lot_digits"]) == (EXCHANGE, lot_digits)
        assert (bar["first_id"], bar["last_id"]) == (NO_FIRST_ID, NO_ID)


def test_what_an_exchange_writes_needs_no_slow_way() -> None:
    rng = random.Random(5)
    rows = []
    for number in range(1_000):
        prices = [decimal8(rng.randrange(1 << rng.randrange(1, 54))) for _ in range(4)]
        volumes = [decimal8(rng.randrange(1 << rng.randrange(1, 59))) for _ in range(4)]
        rows.append(
            [number * 60_000, *prices, volumes[0], number * 60_000 + 59_999, volumes[1], rng.randrange(10**6),
             volumes[2], volumes[3], "0"]
        )  # fmt: skip
    # A day of a coin of which trillions are traded has more digits than int64, all of them zeros.
    rows.append([*PLAIN[:5], "12345678901234567.00000000", *PLAIN[6:]])
    body = text_of(rows)
    found = kernel_only(body, 1)
    assert found is not None
    assert found["volume"].tolist() == klines.read_slowly(body, 1)["volume"].tolist()


@pytest.mark.parametrize(
    ("volume", "lot_digits", "lots"),
    [("0.00005", 4, 0), ("0.00015", 4, 2), ("0.00025", 4, 2), ("0.000250001", 4, 3), ("0.5", 0, 0),
     ("1.5", 0, 2), ("0.00000001", 8, 1), ("123456789012.50000000", 4, 1_234_567_890_125_000),
     ("92233720368.54775807", 8, (1 << 63) - 1), ("9223372036854775807", 0, (1 << 63) - 1)],
)  # fmt: skip
def test_lots_are_exact_and_halves_go_to_even(volume: str, lot_digits: int, lots: int) -> None:
    body = text_of([[*PLAIN[:5], volume, *PLAIN[6:]]])
    assert klines.read(body, lot_digits)["volume"].tolist() == [lots]
    assert klines.read_slowly(body, lot_digits)["volume"].tolist() == [lots]


def test_blanks_more_fields_and_longer_numbers_are_read_the_slow_way() -> None:
    rows = [[*PLAIN, 5], [*PLAIN[:1], "1." + "0" * 40 + "1", *PLAIN[2:]]]
    for row in rows:
        assert kernel_only(text_of([row]), 4) is None
        assert len(klines.read(text_of([row]), 4)) == 1
    spaced = json.dumps([PLAIN, PLAIN], indent=1).encode()
    assert kernel_only(spaced, 4) is None
    assert klines.read(spaced, 4).tobytes() == klines.read(text_of([PLAIN, PLAIN]), 4).tobytes()


def test_an_empty_answer_has_no_klines() -> None:
    assert len(klines.read(b"[]", 4)) == len(klines.read(b" [ ]", 4)) == 0


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[", b"]", b"[[", b"[]]", b"[[]]", b"{}", b"5", b"null", b"<html>", b"\xff\xfe", b"[" * 100_000,
        text_of([PLAIN])[:-1], text_of([PLAIN]) + b",", text_of([PLAIN, PLAIN[:11]]),
        text_of([PLAIN]).replace(b",3,", b",03,"), text_of([PLAIN]).replace(b",3,", b",3.0,"),
        text_of([PLAIN]).replace(b"]]", b"],]"),
        *(text_of([[*PLAIN[:place], wrong, *PLAIN[place + 1 :]]]) for place, wrong in (
            (0, "1"), (0, -1), (0, True), (0, None), (0, 10**17), (8, "3"), (8, 2.5), (1, 1.0), (2, "nan"),
            (2, "1e3"), (2, "1_000"), (3, "x"), (4, None), (5, "-1"), (5, "inf"),
            (5, "1" * 30), (9, ""), (10, []), (10, "1.2.3"),
        )),
    ],
)  # fmt: skip
def test_what_is_no_list_of_klines_is_refused(body: bytes) -> None:
    assert kernel_only(body, 4) is None
    with pytest.raises(ValueError, match=r"no JSON|no list of klines|beyond all markets"):
        klines.read(body, 4)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 30))
def test_damage_never_makes_the_kernel_say_what_python_does_not(seed: int) -> None:
    rng = random.Random(seed)
    body = bytearray(text_of([PLAIN, PLAIN]))
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(body))
        roll = rng.random()
        if roll < 0.4:
            body[at] = rng.choice(b'0123456789.,"[]{}-+eE x\x00\xff')
        elif roll < 0.7:
            del body[at]
        else:
            body[at:at] = body[at : at + rng.randrange(1, 9)]
    found = kernel_only(bytes(body), 4)
    if found is not None:
        expected = klines.read_slowly(bytes(body), 4)
        assert found["slot_us"].tolist() == expected["slot_us"].tolist()
        for name in ("open", "high", "low", "close", "volume", "taker_volume", "trade_count"):
            assert found[name].tolist() == expected[name].tolist()
