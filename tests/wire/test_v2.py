"""wire/v2: what was encoded comes out again, bit by bit, from both decoders; what is no frame is refused."""

import json
import struct
import zlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.v2_vectors import plain
from tests.wire.v2_world import DECODED, EPOCH, GRIDS, RECV_NS, batches, market
from tradeback.model.errors import DecodeError
from tradeback.model.record import GAP, QUOTE, STAND_IN, TRADE, Rows
from tradeback.wire import v2_frame as frame
from tradeback.wire import v2_layout as at
from tradeback.wire.v2 import Decoder, exact
from tradeback.wire.v2_encode import encode_rows, frame_of, heartbeat, varint
from tradeback.wire.v2_frame import Frame, WireError

VECTORS = json.loads((Path(__file__).parent / "vectors_v2.json").read_text("utf-8"))


def make_decoder(fast: bool, grids: Any = DECODED) -> Decoder:
    decoder = Decoder()
    for symbol_id, digits in grids.items():
        decoder.learn(symbol_id, *digits)
    if fast:
        assert decoder.accelerate()
    return decoder


PLAIN, FAST = make_decoder(False), make_decoder(True)
both = pytest.mark.parametrize("decoder", [PLAIN, FAST], ids=["plain", "kernel"])


def outcome(decoder: Decoder, payload: bytes) -> object:
    """What a decoder makes of some bytes, comparable: NaN equals NaN, -0.0 is not 0.0."""
    try:
        found = decoder.decode(payload)
    except WireError as error:
        return error.code
    arrays = (found.trades, found.quotes, found.gaps, found.enigma)
    head = (found.epoch, found.sequence, found.flags, found.count, found.recv_us, found.delay_us)
    return head, found.unknown, [[row.tobytes() for row in packed(array)] for array in arrays]


def packed(array: frame.Array) -> frame.Array:
    """Without the gaps between fields, whose content is nobody's business."""
    assert array.dtype.names is not None
    dtype = np.dtype([(name, array.dtype[name]) for name in array.dtype.names])
    made: frame.Array = np.zeros(len(array), dtype)
    for name in array.dtype.names:
        made[name] = array[name]
    return made


def sane(time_us: int) -> int:
    return time_us if 0 <= time_us < 1 << 53 else 0


def counted(value: float) -> int:
    return int(value) if 0 <= value < 1 << 53 else 0


def bits(value: float) -> int:
    """A float64 to compare; -0.0 counts as 0.0."""
    (found,) = struct.unpack("<q", struct.pack("<d", value + 0.0))
    return int(found)


def int64(value: int) -> int:
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def check_values(row: Any, kept: Any, names: dict[str, str]) -> None:
    """Float and decimal of each value are what the tape holds; on the grid the digits are the grid's."""
    for name, original in names.items():
        assert bits(float(row[name])) == bits(float(kept[original])), name
        if not row["flags"] & at.OFF_GRID:
            price = name in ("price", "bid", "ask")
            digits = GRIDS[int(row["symbol_id"])][0 if price else 1]
            assert row[f"{name}_digits"] == digits
            assert float(exact(row[f"{name}_units"], digits)) == kept[original]


def check(found: Frame, rows: Rows) -> None:
    """A frame holds exactly these records."""
    trades, quotes, gaps = iter(found.trades), iter(found.quotes), iter(found.gaps)
    for place, kept in enumerate(rows):
        if kept["kind"] == TRADE:
            row = next(trades)
            assert (row["id"], row["exchange_us"]) == (kept["id"], sane(int(kept["exchange_us"])))
            assert row["flags"] & 15 == kept["flags"] & 15
            check_values(row, kept, {"price": "price", "quantity": "quantity"})
            stand_in = bool(kept["flags"] & STAND_IN)
            assert row["first_id"] == (counted(float(kept["ask"])) if stand_in else kept["id"])
            stands_for = counted(float(kept["ask_quantity"])) & 0xFFFFFFFF if stand_in else 1
            assert row["stands_for"] == stands_for
        elif kept["kind"] == QUOTE:
            row = next(quotes)
            assert int(row["flags"]) & ~at.OFF_GRID == int(kept["flags"]) & 10
            names = {"bid": "price", "bid_quantity": "quantity", "ask": "ask", "ask_quantity": "ask_quantity"}
            check_values(row, kept, names)
        else:
            row = next(gaps)
            last = counted(float(kept["ask"]))
            assert (row["first_id"], row["last_id"]) == (kept["id"], last)
            assert row["missing"] == counted(float(kept["price"]))
            assert row["state"] == counted(float(kept["quantity"])) & 255
            assert row["stream"] == counted(float(kept["ask_quantity"])) & 255
            assert row["exchange_us"] == sane(int(kept["exchange_us"]))
            assert row["noted_us"] == sane(int(kept["recv_ns"]) // 1000)
        assert (row["place"], row["symbol_id"]) == (place, kept["symbol_id"])
    for rest in (trades, quotes, gaps):
        assert next(rest, None) is None


@settings(deadline=None)
@given(batches(), st.integers(1, 1 << 62), st.integers(0, 10**12))
def test_what_was_encoded_comes_out_again(rows: Rows, sequence: int, delay_ns: int) -> None:
    rows["recv_ns"][-1:] = RECV_NS
    publish_ns = RECV_NS + delay_ns
    kept = rows[np.isin(rows["kind"], (TRADE, QUOTE, GAP))]
    payloads = encode_rows(rows, sequence, epoch=EPOCH, grids=GRIDS, publish_ns=publish_ns)
    assert len(payloads) == (len(kept) > 0)
    for payload in payloads:
        for decoder in (PLAIN, FAST):
            found = decoder.decode(payload)
            check(found, kept)
            assert (found.epoch, found.sequence) == (EPOCH, sequence + len(rows))
            assert (found.recv_us, found.flags, found.unknown) == (RECV_NS // 1000, 0, 0)
            assert found.delay_us == publish_ns // 1000 - RECV_NS // 1000
        assert outcome(PLAIN, payload) == outcome(FAST, payload)


def last_of_events(trades: list[tuple[int, ...]]) -> list[bool]:
    """Of (symbol, id, time, flags): whether no later trade of the same event follows. Written anew."""
    found = []
    for place, (symbol, number, time_us, flags) in enumerate(trades):
        later = next((trade for trade in trades[place + 1 :] if trade[0] == symbol), None)
        found.append(later is None or later != (symbol, number + 1, time_us, flags))
    return found


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_the_last_trade_of_an_event_is_marked(seed: int) -> None:
    rows = market(np.random.default_rng(seed), 60)
    kept = rows[rows["kind"] == TRADE]
    names = ("symbol_id", "id", "exchange_us")
    trades = [(*(int(row[name]) for name in names), int(row["flags"]) & 15) for row in kept]
    for payload in encode_rows(rows, 1, epoch=EPOCH, grids=GRIDS):
        marked = PLAIN.decode(payload).trades["flags"] & at.LAST != 0
        assert marked.tolist() == last_of_events(trades)


@both
def test_conflated_quotes_say_how_many_were_left_out(decoder: Decoder) -> None:
    rows = market(np.random.default_rng(3), 200)
    (payload,) = encode_rows(rows, 1, epoch=EPOCH, grids=GRIDS, conflate=True, frame_flags=at.FRAME_REPLAY)
    found = decoder.decode(payload)
    assert found.flags == at.FRAME_REPLAY
    assert len(found.trades) == np.count_nonzero(rows["kind"] == TRADE), "trades are never left out"
    quotes = rows[rows["kind"] == QUOTE]
    for row in found.quotes:
        of_symbol = quotes[quotes["symbol_id"] == row["symbol_id"]]
        assert row["bid"] == of_symbol["price"][-1]
        assert row["skipped"] == len(of_symbol) - 1
        assert bool(row["flags"] & at.CONFLATED) == (len(of_symbol) > 1)
    assert len(found.quotes) == len(np.unique(quotes["symbol_id"]))


@both
@pytest.mark.parametrize("vector", VECTORS["frames"], ids=lambda vector: str(vector["name"]))
def test_golden_vectors(decoder: Decoder, vector: dict[str, Any]) -> None:
    fresh = make_decoder(decoder is FAST, {int(key): grid for key, grid in VECTORS["grids"].items()})
    payload = bytes.fromhex(vector["hex"])
    if "refused" in vector:
        with pytest.raises(WireError, match=vector["refused"]):
            fresh.decode(payload)
    else:
        assert plain(fresh.decode(payload)) == vector["meaning"]


@both
def test_a_heartbeat_is_a_position(decoder: Decoder) -> None:
    found = decoder.decode(heartbeat(EPOCH, 1 << 40, RECV_NS))
    assert found.is_heartbeat
    assert (found.epoch, found.sequence, found.recv_us) == (EPOCH, 1 << 40, RECV_NS // 1000)
    assert [len(array) for array in (found.trades, found.quotes, found.gaps, found.enigma)] == [0] * 4


def sealed(payload: bytes) -> bytes:
    """The same bytes with the right CRC."""
    return zlib.crc32(payload[4:]).to_bytes(4, "little") + payload[4:]


@settings(deadline=None)
@given(batches(), st.data())
def test_any_damaged_bit_is_noticed(rows: Rows, data: st.DataObject) -> None:
    for payload in encode_rows(rows, 1, epoch=EPOCH, grids=GRIDS):
        damaged = bytearray(payload)
        bit = data.draw(st.integers(0, 8 * len(payload) - 1))
        damaged[bit // 8] ^= 1 << bit % 8
        for decoder in (PLAIN, FAST):
            with pytest.raises(DecodeError):
                decoder.decode(bytes(damaged))
            with pytest.raises(DecodeError):
                decoder.decode(payload[: bit // 8])


@settings(deadline=None)
@given(batches(), st.data())
def test_well_sealed_nonsense_is_the_same_to_both_decoders(rows: Rows, data: st.DataObject) -> None:
    """Behind a good CRC anything may stand: a frame or a reason, never a crash, and the same in both."""
    payloads = encode_rows(rows, 1, epoch=EPOCH, grids=GRIDS)
    payload = bytearray(payloads[0] if payloads else heartbeat(EPOCH, 5, RECV_NS))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(at.HEADER_FIXED_BYTES, len(payload) - 1))
        change = data.draw(st.sampled_from(["set", "cut", "insert"]))
        if change == "set":
            payload[place] = data.draw(st.integers(0, 255))
        elif change == "insert":
            payload[place:place] = data.draw(st.binary(min_size=1, max_size=12))
        elif len(payload) > at.HEADER_FIXED_BYTES + 4:
            del payload[place]
    made = sealed(bytes(payload))
    assert outcome(PLAIN, made) == outcome(FAST, made)


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 40))
def test_arbitrary_entries_are_the_same_to_both_decoders(entries: bytes, count: int) -> None:
    made = frame_of(entries, count, epoch=1, sequence=1, recv_us=RECV_NS // 1000)
    assert outcome(PLAIN, made) == outcome(FAST, made)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_only_the_documented_error(payload: bytes) -> None:
    for decoder in (PLAIN, FAST):
        with pytest.raises(WireError):
            decoder.decode(payload)


long_tags = st.integers(0, 255).filter(
    lambda tag: tag & at.TAG_LONG and tag not in (at.TAG_GAP, at.TAG_ENIGMA)
)


@settings(deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(long_tags, st.binary(max_size=200), st.integers(0, 30)), max_size=5),
)
def test_unknown_kinds_are_skipped(seed: int, strangers: list[tuple[int, bytes, int]]) -> None:
    """Entries of other kinds change nothing of those that are known, wherever they stand."""
    pieces = [
        encode_rows(market(np.random.default_rng(seed + place), 8), 1, epoch=EPOCH, grids=GRIDS)
        for place in range(2)
    ]
    for payload in (piece[0] for piece in pieces if piece):
        before = PLAIN.decode(payload)
        head = at.HEADER_FIXED_BYTES + sum(
            len(varint(number)) for number in (before.sequence, before.count, before.delay_us)
        )
        entries = payload[head:]
        for tag, body, _ in strangers:
            entries += bytes([tag]) + varint(len(body)) + body
        made = frame_of(
            entries,
            before.count + len(strangers),
            epoch=EPOCH,
            sequence=before.sequence,
            recv_us=before.recv_us,
        )
        for decoder in (PLAIN, FAST):
            found = decoder.decode(made)
            assert found.unknown == len(strangers)
            assert found.trades.tolist() == before.trades.tolist()
            assert found.quotes.tolist() == before.quotes.tolist()


@both
def test_longer_gaps_and_enigmas_of_later_versions_are_read(decoder: Decoder) -> None:
    for name in ("gap opened and repaired", "enigma"):
        vector = next(vector for vector in VECTORS["frames"] if vector["name"] == name)
        before = decoder.decode(bytes.fromhex(vector["hex"]))
        raw = bytes.fromhex(vector["hex"])
        head = at.HEADER_FIXED_BYTES + len(varint(before.sequence)) + 1 + len(varint(before.delay_us))
        tag, size = raw[head], raw[head + 1]
        entry = bytes([tag, size + 3]) + raw[head + 2 : head + 2 + size] + b"new"
        made = frame_of(entry, 1, epoch=1, sequence=1, recv_us=before.recv_us)
        found = decoder.decode(made)
        assert found.gaps.tolist() == before.gaps[:1].tolist()
        assert found.enigma.tolist() == before.enigma[:1].tolist()


def test_an_unchecked_crc_is_the_clients_own_choice() -> None:
    payload = heartbeat(EPOCH, 5, RECV_NS)
    assert Decoder(check_crc=False).decode(b"\0\0\0\0" + payload[4:]).sequence == 5


@pytest.mark.parametrize("grid", [(0, 2, 2), (65_536, 2, 2), (1, -1, 2), (1, 2, 23)])
def test_grids_that_cannot_be_are_refused(grid: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"symbol id|decimals"):
        Decoder().learn(*grid)


def test_a_symbol_learned_later_is_known_to_the_kernel_too() -> None:
    rows = market(np.random.default_rng(5), 4)
    rows["kind"], rows["symbol_id"] = TRADE, 1
    (payload,) = encode_rows(rows, 1, epoch=EPOCH, grids=GRIDS)
    decoder = make_decoder(True, {})
    with pytest.raises(WireError, match="subscribe again") as caught:
        decoder.decode(payload)
    assert caught.value.code == frame.UNKNOWN_SYMBOL
    decoder.learn(1, *GRIDS[1])
    assert outcome(decoder, payload) == outcome(PLAIN, payload)


def test_exact_decimals() -> None:
    assert exact(6_183_763, 2) == Decimal("61837.63")
    (units,) = struct.unpack("<q", struct.pack("<d", 0.15625))
    assert exact(units, at.DIGITS_BITS) == Decimal("0.15625")
