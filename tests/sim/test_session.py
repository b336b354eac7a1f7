"""The control protocol of one connection, without sockets."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.sim.config import SECOND_NS, SimConfig
from tradeback.sim.session import BadPath, Reply, Session, Target, parse_target

LONG_PING = SimConfig(client_messages_per_s=1_000_000)


def session(config: SimConfig = LONG_PING, *streams: str) -> Session:
    """A combined session at time 0."""
    return Session(config, Target(True, False, streams), 0)


def ask(one: Session, message: Any, now_ns: int = 0) -> tuple[Any, Reply]:
    """Send a message; returns the parsed answer and the reply."""
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    reply = one.on_text(data, now_ns)
    return json.loads(reply.text), reply


def test_subscribe_list_unsubscribe() -> None:
    one = session()
    answer, reply = ask(one, {"method": "SUBSCRIBE", "params": ["a@trade", "b@trade", "a@trade"], "id": 11})
    assert answer == {"result": None, "id": 11}
    assert reply.added == ["a@trade", "b@trade"]
    answer, reply = ask(one, {"method": "UNSUBSCRIBE", "params": ["a@trade", "c@trade"], "id": "u7"})
    assert answer == {"result": None, "id": "u7"}
    assert reply.dropped == ["a@trade"]
    assert ask(one, {"method": "LIST_SUBSCRIPTIONS", "id": None})[0] == {"result": ["b@trade"], "id": None}


def test_the_combined_property() -> None:
    one = session()
    assert ask(one, {"method": "GET_PROPERTY", "params": ["combined"], "id": 1})[0]["result"] is True
    answer, reply = ask(one, {"method": "SET_PROPERTY", "params": ["combined", False], "id": -2})
    assert answer == {"result": None, "id": -2}
    assert reply.reshaped
    assert ask(one, {"method": "GET_PROPERTY", "params": ["combined"], "id": 1})[0]["result"] is False


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        ({"method": "SET_PROPERTY", "params": ["colour", True], "id": 4}, 0, "Unknown property"),
        (
            {"method": "SET_PROPERTY", "params": ["combined", 1], "id": 4},
            1,
            "Invalid value type: expected Boolean",
        ),
        (
            {"method": "SET_PROPERTY", "params": [7, True], "id": 4},
            2,
            "Invalid request: property name must be a string",
        ),
        (
            {"method": "GET_PROPERTY", "params": ["combined", 1], "id": 4},
            2,
            "Invalid request: too many parameters",
        ),
        (
            {"method": "SUBSCRIBE", "params": [], "id": 1.5},
            2,
            "Invalid request: request ID must be an unsigned integer",
        ),
        ({"params": [], "id": 4}, 2, "Invalid request: missing field `method` at line 1 column 23"),
        (
            {"method": "DANCE", "id": 4},
            2,
            "Invalid request: unknown variant `DANCE`, expected one of `SUBSCRIBE`",
        ),
        ({"method": "SUBSCRIBE", "params": ["@@@x##"], "id": 4}, 2, "Invalid request: invalid stream"),
    ],
)
def test_errors_are_nested_and_carry_the_id(message: Any, code: int, text: str) -> None:
    answer, reply = ask(session(), message)
    assert answer["error"]["code"] == code
    assert answer["error"]["msg"].startswith(text)
    assert answer.get("id", 4) == 4
    assert (reply.close is not None) == (text == "Invalid request: invalid stream")


def test_text_that_is_no_json_is_code_3_without_an_id() -> None:
    answer, reply = ask(session(), b'{"method": nonsense}')
    assert answer == {"error": {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 12"}}
    assert reply.close is None


def test_a_long_message_is_code_3_at_the_ceiling() -> None:
    answer, _ = ask(session(), {"method": "SUBSCRIBE", "params": ["x@trade"] * 600, "id": 1})
    assert answer == {"error": {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 4096"}}


def test_more_streams_than_allowed_are_refused_whole() -> None:
    one = session(SimConfig(streams_per_connection_max=2), "a@trade")
    answer, reply = ask(one, {"method": "SUBSCRIBE", "params": ["b@trade", "c@trade"], "id": 1})
    assert answer["error"]["code"] == 2
    assert reply.added == []
    assert ask(one, {"method": "LIST_SUBSCRIPTIONS", "id": 2})[0]["result"] == ["a@trade"]


def test_the_sixth_message_within_a_second_closes_pongs_included() -> None:
    one = session(SimConfig())
    for number in range(5):
        assert one.on_control(number * 1_000_000).close is None
    assert one.on_control(SECOND_NS - 1, b"x").close == (1008, "Too many requests")
    two = session(SimConfig())
    for number in range(30):
        assert two.on_control(number * SECOND_NS // 5).close is None


def test_ping_every_interval_and_the_pong_that_must_copy_it() -> None:
    one = session(SimConfig(ping_interval_s=20, pong_timeout_s=60))
    assert one.on_time(19 * SECOND_NS) == (b"", None)
    payload, close = one.on_time(20 * SECOND_NS)
    assert payload
    assert close is None
    one.on_control(21 * SECOND_NS, b"")
    one.on_control(22 * SECOND_NS, b"other")
    assert one.on_time(79 * SECOND_NS)[1] is None
    assert one.on_time(80 * SECOND_NS)[1] == (1008, "Pong timeout")
    two = session(SimConfig())
    payload, _ = two.on_time(20 * SECOND_NS)
    two.on_control(21 * SECOND_NS, payload)
    assert two.on_time(81 * SECOND_NS)[1] is None


def test_a_connection_is_cut_at_the_end_of_its_life() -> None:
    one = session(SimConfig(connection_life_s=50, ping_interval_s=100))
    assert one.on_time(50 * SECOND_NS - 1) == (b"", None)
    assert one.on_time(50 * SECOND_NS)[1] is not None


def test_targets() -> None:
    assert parse_target("/ws") == Target(False, False, ())
    assert parse_target("/stream?streams=") == Target(True, False, ())
    assert parse_target("/ws/a@trade/b@depth5@100ms") == Target(False, False, ("a@trade", "b@depth5@100ms"))
    expected = Target(True, True, ("a@trade", "çay币usdt@kline_1d@+08:00"))
    encoded = "%C3%A7ay%E5%B8%81usdt%40kline_1d%40%2B08%3A00"
    assert parse_target(f"/stream?timeUnit=MICROSECOND&streams=a%40trade%2F{encoded}") == expected
    assert parse_target("/stream?streams=a@trade/çay币usdt@kline_1d@+08:00&timeUnit=microsecond") == expected
    assert parse_target("/ws/0") == Target(False, False, ("0",))
    assert parse_target("/stream?streams=nosuch") == Target(True, False, ("nosuch",))


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/", 404),
        ("/stream/nonsense", 404),
        ("/wsx", 404),
        ("/ws/@@x", 400),
        ("/ws/a b", 400),
        ("/ws?timeUnit=HOUR", 400),
    ],
)
def test_refused_targets(target: str, status: int) -> None:
    with pytest.raises(BadPath) as refused:
        parse_target(target)
    assert refused.value.status == status


@given(st.one_of(st.binary(max_size=200), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["method", "params", "id", "x"]), inner, max_size=4),
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_whatever_comes_only_documented_errors_leave(data: bytes) -> None:
    answer, _ = ask(session(), data)
    assert ("error" in answer and answer["error"]["code"] in (0, 1, 2, 3)) or "result" in answer
