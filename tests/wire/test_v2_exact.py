"""wire/v2_exact: every record comes back bit by bit, any decoder of version 2 reads it, damage is seen."""

import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.wire.v2_world import DECODED, EPOCH, batches, market
from tradeback.model.record import AGG, GAP, QUOTE, SEED_BAR, STAND_IN, TRADE, Rows, empty_rows, seal
from tradeback.model.symbols import Symbol
from tradeback.wire import v2_layout as at
from tradeback.wire.v2 import Decoder
from tradeback.wire.v2_encode import frame_of
from tradeback.wire.v2_exact import PIECE_ROWS, ExactCodec, Piece, position_of
from tradeback.wire.v2_frame import WireError


def step(digits: int) -> str:
    return f"0.{'0' * (digits - 1)}1" if digits else "1"


KNOWN = [
    Symbol(number, f"S{number}", tick_size=step(p), step_size=step(q)) for number, (p, q) in DECODED.items()
]


@pytest.fixture(scope="module")
def codec() -> ExactCodec:
    made = ExactCodec()
    made.attach()
    made.learn(KNOWN)
    return made


def sealed(rows: Rows, first: int) -> Rows:
    held = rows.copy()
    seal(held, first, EPOCH)
    return held


def check(codec: ExactCodec, rows: Rows, first: int) -> list[Piece]:
    """Encode, decode by one who knows no symbol, compare."""
    pieces = codec.encode(rows, EPOCH, first)
    reader = ExactCodec()
    at_sequence = first
    for piece in pieces:
        assert piece.first == at_sequence
        assert position_of(piece.frame) == (EPOCH, piece.end)
        assert len(piece.frame) <= at.FRAME_BYTES_MAX
        stretch = reader.decode(piece.frame)
        assert (stretch.epoch, stretch.first, stretch.end) == (EPOCH, piece.first, piece.end)
        assert stretch.rows.tobytes() == rows[piece.first - first : piece.end - first].tobytes()
        at_sequence = piece.end
    assert at_sequence == first + len(rows)
    return pieces


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches(), st.integers(1, 1 << 53))
def test_every_record_comes_back(codec: ExactCodec, rows: Rows, first: int) -> None:
    check(codec, sealed(rows, first), first)


def test_kinds_that_are_in_no_frame_of_clients_come_back(codec: ExactCodec) -> None:
    rows = empty_rows(600)
    rows["kind"] = np.resize([AGG, SEED_BAR, TRADE, QUOTE, GAP, 99], 600)
    rows["symbol_id"] = np.resize([1, 2, 3, 0], 600)
    rows["id"], rows["price"], rows["recv_ns"] = np.arange(600), np.arange(600) / 7, np.arange(600) * 10**9
    rows["flags"][rows["kind"] == TRADE] = STAND_IN
    pieces = check(codec, sealed(rows, 9), 9)
    assert sum(piece.end - piece.first for piece in pieces) == 600


def test_many_records_are_cut_into_frames(codec: ExactCodec) -> None:
    rows = sealed(market(np.random.default_rng(1), 3 * PIECE_ROWS + 5), 100)
    assert len(check(codec, rows, 100)) >= 4
    noise = np.random.default_rng(2).bytes(64 * PIECE_ROWS)
    wild = np.frombuffer(noise, rows.dtype).copy()
    wild["symbol_id"] = 1
    assert len(check(codec, sealed(wild, 7), 7)) > 1


def test_any_decoder_reads_what_clients_get(codec: ExactCodec) -> None:
    rows = sealed(market(np.random.default_rng(3), 200), 1)
    (piece,) = codec.encode(rows, EPOCH, 1)
    decoder = Decoder()
    for number, digits in DECODED.items():
        decoder.learn(number, *digits)
    frame = decoder.decode(piece.frame)
    assert (frame.epoch, frame.sequence, frame.unknown) == (EPOCH, 201, 1)
    assert frame.trades["id"].tolist() == rows["id"][rows["kind"] == TRADE].tolist()
    assert frame.quotes["bid"].tolist() == rows["price"][rows["kind"] == QUOTE].tolist()


def test_a_frame_is_small(codec: ExactCodec) -> None:
    rows = sealed(market(np.random.default_rng(4), 4_000), 1)
    size = sum(len(piece.frame) for piece in codec.encode(rows, EPOCH, 1))
    assert size < 0.6 * 64 * len(rows)


def test_a_symbol_that_is_not_known_is_refused(codec: ExactCodec) -> None:
    rows = empty_rows(1)
    rows["symbol_id"], rows["kind"] = 4711, TRADE
    assert codec.unknown(rows) == {4711}
    with pytest.raises(ValueError, match="4711"):
        codec.encode(sealed(rows, 1), EPOCH, 1)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_is_refused(codec: ExactCodec, data: st.DataObject) -> None:
    rows = sealed(market(np.random.default_rng(5), 20), 50)
    (piece,) = codec.encode(rows, EPOCH, 50)
    damaged = bytearray(piece.frame)
    place = data.draw(st.integers(4, len(damaged) - 1))
    damaged[place] ^= data.draw(st.integers(1, 255))
    reader = ExactCodec()
    with pytest.raises(WireError):
        reader.decode(bytes(damaged))
    # Whoever damages it knowingly, with a CRC that fits, gets other records past nobody.
    damaged[:4] = zlib.crc32(damaged[4:]).to_bytes(4, "little")
    try:
        found = reader.decode(bytes(damaged))
    except WireError:
        return
    assert (
        found.rows["checksum"].tolist() == rows["checksum"].tolist()
        or found.epoch != EPOCH
        or found.first != 50
    )


@pytest.mark.parametrize("size", range(40))
def test_a_cut_frame_is_refused(codec: ExactCodec, size: int) -> None:
    (piece,) = codec.encode(sealed(market(np.random.default_rng(6), 5), 1), EPOCH, 1)
    with pytest.raises(WireError):
        ExactCodec().decode(piece.frame[:size])


def test_a_frame_for_clients_is_refused() -> None:
    with pytest.raises(WireError, match="made for clients"):
        ExactCodec().decode(frame_of(b"", 0, epoch=1, sequence=2, recv_us=3))
    with pytest.raises(WireError, match="no frame"):
        position_of(b"x" * 40)
