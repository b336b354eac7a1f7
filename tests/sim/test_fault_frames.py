"""Telling frames apart, and the frames that nobody should send."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.exchange.harness import agg, frame, quote, trade
from tradeback.sim.fault_frames import (
    ANNOUNCEMENT,
    REPLY,
    broken_bytes,
    chance_of,
    garbage,
    id_of,
    payload_of,
    shuffle_streams,
    stream_of,
)
from tradeback.sim.faults import BROKEN, GARBAGE


@given(
    st.binary(max_size=120)
    | st.sampled_from(GARBAGE).map(
        lambda how: payload_of(garbage(how, random.Random(5), "BTCUSDT", trade(7)))
    ),
    st.integers(0, 120),
)
def test_any_frame_can_be_asked_for_its_stream(payload: bytes, cut: int) -> None:
    """Several faults may hit one frame: what one of them made meets the next."""
    for part in (payload, payload[:cut], b'{"stream":"' + payload[:cut]):
        assert isinstance(stream_of(frame(part)), str)


def test_streams_and_ids_of_good_frames() -> None:
    assert (stream_of(trade(17)), id_of(trade(17))) == ("btcusdt@trade", 17)
    assert (stream_of(agg(5, 1, 2, "1.0")), id_of(agg(5, 1, 2, "1.0"))) == ("btcusdt@aggTrade", 5)
    assert (stream_of(quote(9)), id_of(quote(9))) == ("btcusdt@bookTicker", 9)
    assert stream_of(frame(b'{"result":null,"id":1}')) == REPLY
    assert stream_of(frame(b'{"e":"serverShutdown","E":1}')) == ANNOUNCEMENT
    assert stream_of(frame(b'{"e":"trade","s":"ETHUSDT","t":4}')) == "ethusdt@trade"
    assert stream_of(frame(b'{"u":4,"s":"ETHUSDT"}')) == "ethusdt@bookTicker"
    assert (stream_of(frame(b"{}")), id_of(frame(b"{}"))) == ("", -1)


@given(
    st.lists(st.tuples(st.sampled_from(["BTCUSDT", "ETHUSDT", "BNBUSDT"]), st.integers(1, 9)), max_size=40)
)
def test_shuffling_keeps_the_order_within_a_stream(sent: list[tuple[str, int]]) -> None:
    frames = [trade(number, symbol=symbol) for symbol, number in sent]
    mixed = shuffle_streams(frames, random.Random(1))
    assert sorted(mixed) == sorted(frames)
    for stream in {stream_of(one) for one in frames}:
        assert [one for one in mixed if stream_of(one) == stream] == [
            one for one in frames if stream_of(one) == stream
        ]


@pytest.mark.parametrize("how", GARBAGE[1:])
@pytest.mark.parametrize("seed", range(20))
def test_garbage_is_one_whole_frame_and_no_event(how: str, seed: int) -> None:
    made = garbage(how, random.Random(seed), "BTCUSDT", trade(17))
    payload = payload_of(made)
    size = made[1]
    if size == 126:
        size = int.from_bytes(made[2:4], "big")
    elif size == 127:
        size = int.from_bytes(made[2:10], "big")
    assert len(payload) == size
    assert payload != payload_of(trade(17))
    if made[0] == 0x81 and how in ("unknown_event", "wrong_types", "unknown_symbol", "huge"):
        json.loads(payload)


def test_broken_bytes_are_no_frame_of_a_server() -> None:
    for how in BROKEN[1:]:
        made = broken_bytes(how, random.Random(3))
        good = made[0] in (0x81, 0x82, 0x88, 0x89, 0x8A) and made[1] < 126
        assert not good, how


def test_a_chance_is_the_same_for_whoever_asks() -> None:
    assert chance_of(1, "btcusdt@trade", 7) == chance_of(1, "btcusdt@trade", 7)
    drawn = [chance_of(1, "btcusdt@trade", number) for number in range(2_000)]
    assert 0.45 < sum(drawn) / len(drawn) < 0.55
    assert 0.0 <= min(drawn) < max(drawn) < 1.0
