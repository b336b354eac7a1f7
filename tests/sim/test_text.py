"""Decimals and the frames around them."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from tests.sim.tools import body
from tradeback.sim.channels import Hub, Listener, frame
from tradeback.sim.instrument import catalogue
from tradeback.sim.text import decimal8, quote8, units8


@given(st.integers(-(10**20), 10**20))
def test_units_and_text_are_each_others_inverse(units: int) -> None:
    text = decimal8(units)
    assert Decimal(text) == Decimal(units).scaleb(-8)
    assert len(text.partition(".")[2]) == 8
    if units >= 0:
        assert units8(text) == units8(text.encode()) == units


def test_short_and_long_decimals() -> None:
    assert units8("0.23") == 23_000_000
    assert units8("7") == 700_000_000
    assert units8("1.123456789") == 112_345_678
    assert quote8(units8("0.00000003"), units8("0.5")) == 1


@given(st.binary(max_size=300), st.sampled_from([0, 200, 70_000]))
def test_every_frame_has_the_shortest_header(payload: bytes, more: int) -> None:
    text = payload + b"x" * more
    assert body(frame(text)) == text


@given(st.binary(max_size=5_000))
def test_combined_frames_wrap_the_payload(payload: bytes) -> None:
    hub, frames = Hub(), list[bytes]()
    hub.subscribe("x@trade", 1, Listener(frames.append, True, False))
    hub.channel("x@trade").publish(lambda us: payload)
    assert [body(one) for one in frames] == [b'{"stream":"x@trade","data":' + payload + b"}"]


def test_the_catalogue_has_distinct_names_on_exact_grids() -> None:
    listed = catalogue(500, unicode_names=True)
    assert len({one.symbol for one in listed}) == 500
    for one in listed:
        assert one.price % one.tick == 0
        assert one.tick * one.step % 10**8 == 0, f"{one.symbol} needs more decimals"
        assert one.lot >= one.step
        assert len(one.symbol.encode()) <= 24
