"""api.udf_shapes: grids, slots and numbers as charts want them."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.feed.harness import SYMBOLS
from tradeback.api.errors import ApiError
from tradeback.api.udf_shapes import (
    SECONDS_MAX,
    SERVED,
    Refusal,
    find,
    grid,
    number,
    resolution_index,
    slot_start,
    symbol_info,
)
from tradeback.model.symbols import SymbolTable


@pytest.mark.parametrize(
    ("tick", "scale", "minmov"),
    [
        ("0.01000000", 100, 1),
        ("0.00000100", 1_000_000, 1),
        ("1.00000000", 1, 1),
        ("0.25", 100, 25),
        ("0.5", 10, 5),
        ("10", 1, 10),
        ("0.00000001", 100_000_000, 1),
        ("100.00", 1, 100),
    ],
)
def test_pricescale_and_minmov(tick: str, scale: int, minmov: int) -> None:
    assert grid(tick) == (scale, minmov)


@given(units=st.integers(1, 10**6), digits=st.integers(0, 8), zeros=st.integers(0, 4))
def test_a_grid_is_exact_and_its_scale_a_power_of_ten(units: int, digits: int, zeros: int) -> None:
    tick = f"{Decimal(units).scaleb(-digits):f}"
    tick += "0" * zeros if "." in tick else ""
    scale, minmov = grid(tick)
    assert str(scale).strip("0") == "1"
    assert Decimal(minmov) / Decimal(scale) == Decimal(tick)


def test_slots_of_all_offered_resolutions() -> None:
    at = int(datetime(2026, 11, 19, 13, 47, 33, tzinfo=UTC).timestamp())  # a Thursday

    def start(resolution: str) -> str:
        return datetime.fromtimestamp(slot_start(resolution, at), UTC).strftime("%m-%d %H:%M:%S")

    assert start("1S") == "11-19 13:47:33"
    assert start("5") == "11-19 13:45:00"
    assert start("240") == "11-19 12:00:00"
    assert start("D") == start("1D") == "11-19 00:00:00"
    assert start("W") == start("1W") == "11-16 00:00:00"
    assert start("1M") == "11-01 00:00:00"
    assert slot_start("1M", SECONDS_MAX) > 0


def test_resolutions() -> None:
    assert [resolution_index(name) for name in SERVED] == list(range(7))
    assert resolution_index("D") == resolution_index("1D")
    for name in ("4h", "1m", "1W", "1M", "", "0", "30", "1T", "60m"):
        with pytest.raises(Refusal, match="not served"):
            resolution_index(name)


@pytest.mark.parametrize("name", ["BTCUSDT", "btcusdt", "BINANCE:BTCUSDT", "binance:btcusdt", " BTCUSDT "])
def test_a_symbol_is_found_by_name_and_ticker_in_any_case(name: str) -> None:
    assert find(SymbolTable.of(SYMBOLS), name).symbol == "BTCUSDT"


@pytest.mark.parametrize("name", ["", "NOPE", "KRAKEN:BTCUSDT", ":BTCUSDT", "BINANCE:", "BTCUSDT:BINANCE"])
def test_others_are_refused_with_the_charts_own_word(name: str) -> None:
    with pytest.raises(Refusal, match=r"^unknown_symbol$"):
        find(SymbolTable.of(SYMBOLS), name)


def test_a_symbol_never_holds_s() -> None:
    info = symbol_info(SYMBOLS[0])
    assert "s" not in info
    assert info["ticker"] == "BINANCE:BTCUSDT"
    assert (info["pricescale"], info["minmov"], info["volume_precision"]) == (100, 1, 5)
    assert info["intraday_multipliers"] == ["1", "5", "15", "60", "240"]


@pytest.mark.parametrize(
    ("text", "up", "down"),
    [("5", 5, 5), ("-7", 0, 0), ("1.5", 2, 1), ("1e3", 1000, 1000), ("1e999999", SECONDS_MAX, SECONDS_MAX),
     ("-1e999999", 0, 0), ("0.0000001", 1, 0), (" 9 ", 9, 9)],
)  # fmt: skip
def test_numbers_as_charts_send_them(text: str, up: int, down: int) -> None:
    assert number("to", "").read({"to": text}) == up
    assert number("to", "", up=False).read({"to": text}) == down


@pytest.mark.parametrize("text", ["x", "nan", "Infinity", "[object Object]", "1,5", "0x10", "--1"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ApiError, match="it must be a number"):
        number("from", "").read({"from": text})


def test_a_number_that_must_be_there() -> None:
    assert number("from", "").read({}) is None
    with pytest.raises(ApiError, match="to is missing"):
        number("to", "", required=True).read({"to": ""})
