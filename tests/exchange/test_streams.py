"""exchange.streams: who subscribes to what, and control messages inside the exchange's limits."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.exchange.streams import (
    STREAMS,
    control_messages,
    plan_lines,
    stream_address,
    stream_name,
)
from tradeback.model.errors import ConfigError
from tradeback.model.limits import STREAMS_PER_CONNECTION_MAX

names = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).map(
        lambda text: f"{text}@trade"
    ),
    max_size=700,
    unique=True,
)


@given(names, st.integers(1, 1 << 40))
def test_control_messages(wanted: list[str], first_id: int) -> None:
    messages = list(control_messages("SUBSCRIBE", wanted, first_id))
    parsed = [json.loads(message) for message in messages]
    assert [name for message in parsed for name in message["params"]] == wanted
    assert [message["id"] for message in parsed] == list(range(first_id, first_id + len(parsed)))
    for raw, message in zip(messages, parsed, strict=True):
        assert len(raw) <= 4_000
        assert 1 <= len(message["params"]) <= 200
        assert set(message) == {"method", "params", "id"}
        assert message["method"] == "SUBSCRIBE"


def test_control_messages_are_as_few_as_the_limits_allow() -> None:
    short = [f"S{number}@trade" for number in range(401)]
    assert [len(json.loads(m)["params"]) for m in control_messages("SUBSCRIBE", short, 1)] == [200, 200, 1]
    # Non-ASCII names go as they are: the limit counts bytes.
    long = ["币安人生" * 5 + f"{number}@bookTicker" for number in range(200)]
    messages = list(control_messages("UNSUBSCRIBE", long, 1))
    assert all(len(message) > 3_800 for message in messages[:-1])
    assert "币".encode() in messages[0]
    assert list(control_messages("SUBSCRIBE", [], 1)) == []


@given(st.integers(0, 5_000), st.integers(1, 2))
def test_a_plan_carries_every_stream_once_per_line(count: int, lines: int) -> None:
    symbols = [f"S{number}" for number in range(count)]
    plans = plan_lines(symbols, lines, 1_000)
    carried = Counter((plan.line, plan.stream, symbol) for plan in plans for symbol in plan.symbols)
    assert set(carried.values()) <= {1}
    assert len(carried) == count * lines * len(STREAMS)
    assert len({plan.name for plan in plans}) == len(plans)
    assert [plan.line for plan in plans] == sorted(plan.line for plan in plans)
    sizes = [len(plan.symbols) for plan in plans]
    assert all(1 <= size <= STREAMS_PER_CONNECTION_MAX for size in sizes)
    if sizes:
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("count", "needed"), [(1, 3), (1_024, 3), (1_025, 6), (3_000, 9)])
def test_connections_needed(count: int, needed: int) -> None:
    symbols = [f"S{number}" for number in range(count)]
    assert len(plan_lines(symbols, 1, needed + 1)) == needed
    assert len(plan_lines(symbols, 2, 2 * needed + 1)) == 2 * needed
    with pytest.raises(ConfigError, match="EXCHANGE_MAX_CONNECTIONS") as refused:
        plan_lines(symbols, 2, 2 * needed)
    assert str(2 * needed + 1) in str(refused.value)
    assert str(count) in str(refused.value)


def test_names_and_address() -> None:
    assert stream_name("币安人生USDT", "bookTicker") == "币安人生usdt@bookTicker"
    for endpoint in ("wss://stream.binance.com:9443", "wss://stream.binance.com:9443/"):
        assert stream_address(endpoint) == "wss://stream.binance.com:9443/stream?timeUnit=MICROSECOND"
    assert [plan.name for plan in plan_lines(["BTCUSDT"], 2, 7)] == [
        "a:trade:0", "a:bookTicker:0", "a:aggTrade:0", "b:trade:0", "b:bookTicker:0", "b:aggTrade:0",
    ]  # fmt: skip
