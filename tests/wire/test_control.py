"""wire/control: requests typed or refused with a documented code, whatever comes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.model.limits import SYMBOLS_PER_REQUEST_MAX
from tradeback.model.symbols import Symbol
from tradeback.wire import control
from tradeback.wire.control import Ping, Refused, Subscribe, Unsubscribe, parse

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def request(**fields: object) -> dict[str, object]:
    return dict(fields)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (request(type="ping"), Ping()),
        (request(type="subscribe", symbols=["A", "B", "A"]), Subscribe(("A", "B"), False, ("trades",))),
        (request(type="subscribe", symbols="*"), Subscribe((), True, ("trades",))),
        (request(type="subscribe", symbols=["*", "A"]), Subscribe(("A",), True, ("trades",))),
        (
            request(type="subscribe", symbols=["A"], channels=["enigma", "trades", "enigma"]),
            Subscribe(("A",), False, ("trades", "enigma")),
        ),
        (request(type="subscribe", symbols=["A"], channels=None), Subscribe(("A",), False, ("trades",))),
        (request(type="unsubscribe", symbols=["A"]), Unsubscribe(("A",), False, ("trades", "enigma"))),
        (
            request(type="unsubscribe", symbols=["A"], channels=["enigma"]),
            Unsubscribe(("A",), False, ("enigma",)),
        ),
        (request(type="ping", more={"x": 1}), Ping()),
    ],
)
def test_requests(message: dict[str, object], expected: control.Request) -> None:
    assert parse(message) == expected


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (None, control.BAD_REQUEST),
        ([], control.BAD_REQUEST),
        ("ping", control.BAD_REQUEST),
        ({}, control.BAD_REQUEST),
        (request(type=5), control.BAD_REQUEST),
        (request(type="resume", epoch=1, sequence=2), control.UNKNOWN_TYPE),
        (request(type="Ping"), control.UNKNOWN_TYPE),
        (request(type="subscribe"), control.BAD_REQUEST),
        (request(type="subscribe", symbols=[]), control.BAD_REQUEST),
        (request(type="subscribe", symbols="BTCUSDT"), control.BAD_REQUEST),
        (request(type="subscribe", symbols=[1]), control.BAD_REQUEST),
        (request(type="subscribe", symbols=[""]), control.BAD_REQUEST),
        (request(type="subscribe", symbols=["A"], channels=["quotes"]), control.BAD_REQUEST),
        (request(type="subscribe", symbols=["A"], channels=[[]]), control.BAD_REQUEST),
        (request(type="subscribe", symbols=["A"], channels=[]), control.BAD_REQUEST),
        (request(type="subscribe", symbols=["A"], channels="trades"), control.BAD_REQUEST),
        (request(type="subscribe", symbols=["A"] * (SYMBOLS_PER_REQUEST_MAX + 1)), control.TOO_MANY_SYMBOLS),
        (request(type="unsubscribe", symbols=None), control.BAD_REQUEST),
    ],
)
def test_refusals(message: object, code: str) -> None:
    refused = parse(message)
    assert isinstance(refused, Refused)
    assert refused.code == code
    assert refused.message


@given(
    json_values
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["subscribe", "unsubscribe", "ping", "x"])},
        optional={"symbols": json_values, "channels": json_values},
    )
)
def test_anything_is_a_request_or_a_documented_refusal(message: object) -> None:
    found = parse(message)
    if isinstance(found, Refused):
        assert found.code in control.ERROR_CODES
        assert len(found.message) < 300
    elif isinstance(found, Subscribe | Unsubscribe):
        assert found.names or found.everything
        assert set(found.channels) <= set(control.CHANNELS)


def test_answers_have_the_shapes_of_the_contract() -> None:
    symbol = Symbol(1, "BTCUSDT", tick_size="0.01000000", step_size="0.00001000")
    assert control.subscribed([symbol]) == {
        "type": "subscribed",
        "symbols": {"BTCUSDT": {"id": 1, "price_precision": 2, "quantity_precision": 5}},
    }
    assert control.unsubscribed(["BTCUSDT"]) == {"type": "unsubscribed", "symbols": ["BTCUSDT"]}
    assert control.pong(1_700_000_000_000) == {"type": "pong", "timestamp": 1_700_000_000_000}
    assert control.enigma({"symbol": "BTCUSDT"}) == {"type": "enigma", "data": {"symbol": "BTCUSDT"}}
    assert control.error("bad_json", "no") == {"type": "error", "code": "bad_json", "message": "no"}


def test_an_error_repeats_only_some_names_and_never_much_of_one() -> None:
    answer = control.unknown_symbols([f"S{n}" for n in range(50)] + ["x" * 10_000])
    assert answer["code"] == control.UNKNOWN_SYMBOL
    assert "'S9' and 41 more" in answer["message"]
    assert len(control.unknown_symbols(["x" * 10_000])["message"]) < 200
