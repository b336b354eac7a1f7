"""Frames of everything: the oracle's bytes, whatever the rows, and packed without loss."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.model.record import AGG, GAP, QUOTE, SEED_BAR, TRADE, Rows, empty_rows
from tradeback.wire import v2_layout as at
from tradeback.wire.v2 import Decoder
from tradeback.wire.v2_batch import BatchEncoder, pack, unpack
from tradeback.wire.v2_encode import encode_rows

GRIDS = {1: (2, 5), 2: (8, 0), 65_535: (0, 0)}


@pytest.fixture(scope="module")
def encoder() -> BatchEncoder:
    made = BatchEncoder()
    made.attach()
    for symbol_id, digits in GRIDS.items():
        made.learn(symbol_id, *digits)
    return made


def rows_of(count: int, seed: int) -> Rows:
    chance = np.random.default_rng(seed)
    rows = empty_rows(count)
    rows["kind"] = chance.choice([TRADE, QUOTE, AGG, GAP, SEED_BAR], count)
    rows["symbol_id"] = chance.choice([1, 2, 65_535], count)
    rows["id"] = np.arange(count) + 5
    rows["exchange_us"] = 1_700_000_000_000_000 + chance.integers(0, 10**6, count)
    rows["recv_ns"] = 1_700_000_001_000_000_000 + np.arange(count)
    rows["price"] = np.round(chance.uniform(1, 100, count), 2)
    rows["quantity"] = np.round(chance.uniform(1, 100, count), 5)
    rows["ask"], rows["ask_quantity"] = rows["price"] + 1, 2.0
    rows["quantity"][rows["kind"] == GAP] = 1.0
    rows["flags"] = chance.integers(0, 16, count) & ~4
    return rows


@settings(deadline=None, max_examples=25)
@given(count=st.integers(0, 1_200), seed=st.integers(0, 2**32 - 1), first=st.integers(1, 2**40))
def test_the_oracle_makes_the_same_frames(encoder: BatchEncoder, count: int, seed: int, first: int) -> None:
    rows = rows_of(count, seed)
    ours = encoder.frames(rows, 77, first)
    assert unpack(pack(ours)) == ours
    decoder = Decoder()
    for symbol_id, digits in GRIDS.items():
        decoder.learn(symbol_id, *digits)
    theirs = encode_rows(rows, first, epoch=77, grids=GRIDS, frame_flags=at.FRAME_REPLAY)
    if count <= 1_000:  # more are cut into several calls, each of which ends a frame
        assert ours == theirs
    found = [decoder.decode(frame) for frame in ours]
    for kind, name in ((TRADE, "trades"), (QUOTE, "quotes"), (GAP, "gaps")):
        held = sum(len(getattr(frame, name)) for frame in found)
        assert held == int((rows["kind"] == kind).sum())


def test_rows_that_nobody_gets(encoder: BatchEncoder) -> None:
    rows = rows_of(50, 1)
    rows["kind"] = AGG
    assert encoder.frames(rows, 1, 1) == []
    assert encoder.frames(rows[:0], 1, 1) == []
    assert unpack(pack([])) == []


def test_a_cut_batch_is_refused() -> None:
    data = pack([b"abc", b"", b"x" * 300])
    assert unpack(data) == [b"abc", b"", b"x" * 300]
    for end in range(1, len(data)):
        if end not in (5, 7):
            with pytest.raises(ValueError, match="cut"):
                unpack(data[:end])
