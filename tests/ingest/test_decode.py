"""The decoder against orjson and float: whatever it calls OK is what they say, bit for bit."""

import string
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingest.oracle import event_of, is_plain
from tests.ingest.world import Room, agg, combined, quote, raw, trade
from tradeback.ingest.context import SCRATCH_BYTES
from tradeback.ingest.grammar import EVENT_US, NOT_EXACT, NOT_KNOWN, NOT_MINE, OK, STREAM_END, STREAM_START

KNOWN = [
    "BTCUSDT",
    "ETHUSDT",
    "A",
    "AB",
    "1000SATSUSDT",
    "币安人生USDT",
    "ÄÖÜßUSDT",
    "X" * 23,
    "币" * 7 + "AB",
]
ROOM = Room(KNOWN)
MEANT = set("estpqTmEuabABfl")
"""Keys that mean something in one of the frames."""
IDS_MAX = 10**18 - 1


def check(frame: bytes, room: Room = ROOM, behind: bytes = bytes(64)) -> int:
    """Decode; when the kernel says OK, its record must be the oracle's. Returns the status."""
    status, rows = room.decode(frame, behind)
    if status == OK:
        expected = room.expected(frame)
        assert expected is not None, f"accepted, but the oracle refuses: {frame!r}"
        assert rows.tobytes() == expected.tobytes(), (frame, rows, expected)
        event = event_of(frame)
        assert event is not None
        assert int(room.scratch[EVENT_US // 8]) == event.event_us
    return status


symbols = st.one_of(
    st.sampled_from(KNOWN),
    st.text(
        st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='"\\'), min_size=1, max_size=23
    ),
).filter(lambda name: len(name.encode()) <= 23)
digits = st.text(string.digits, min_size=1, max_size=8)
decimals = st.one_of(
    st.integers(0, 10**15).map(lambda units: f"{units // 10**8}.{units % 10**8:08d}"),
    st.tuples(digits, st.text(string.digits, min_size=1, max_size=20)).map(".".join),
    st.tuples(digits, digits, st.integers(0, 12)).map(lambda part: f"{part[0]}.{part[1]}{'0' * part[2]}"),
    st.tuples(st.sampled_from(["0.", "0.00000000", "0.000000000000"]), digits).map("".join),
    st.text(string.digits, min_size=1, max_size=28),
)
ids = st.one_of(
    st.integers(0, 10**10), st.integers(0, IDS_MAX), st.sampled_from([0, 10**8 - 1, 10**8, 2**53])
)
times = st.one_of(
    st.integers(10**12, 10**13), st.integers(10**15, 10**16), st.sampled_from([0, 10**14 - 1, 10**14])
)
flags = st.sampled_from(["true", "false"])
json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)
extra_values = json_values.map(lambda value: orjson.dumps(value).decode(errors="surrogatepass"))


@st.composite
def events(draw: st.DrawFn) -> tuple[str, list[tuple[str, str]], list[str]]:
    """(symbol, keys in the documented order with their JSON, the decimals among them)."""
    symbol = draw(symbols)
    numbers = draw(st.lists(decimals, min_size=4, max_size=4))
    number, text = draw(ids), [f'"{decimal}"' for decimal in numbers]
    kind = draw(st.sampled_from(["quote", "trade", "agg"]))
    if kind == "quote":
        event = quote(symbol, number, b=text[0], B=text[1], a=text[2], A=text[3])
        return symbol, list(event.items()), numbers
    changes = {"E": str(draw(times)), "T": str(draw(times)), "m": draw(flags), "M": draw(flags)}
    changes |= {"p": text[0], "q": text[1]}
    if kind == "trade":
        return symbol, list(trade(symbol, number, **changes).items()), numbers[:2]
    first = draw(st.integers(0, IDS_MAX))
    last = draw(st.integers(first, min(first + 10_000, IDS_MAX)))
    return symbol, list(agg(symbol, number, first, last, **changes).items()), numbers[:2]


def frames(symbol: str, pairs: list[tuple[str, str]], wrapped: bool) -> bytes:
    return combined(f"{symbol.lower()}@any", raw(pairs)) if wrapped else raw(pairs)


@settings(max_examples=600, deadline=None)
@given(events(), st.booleans())
def test_documented_frames_are_decoded_in_the_kernel(
    event: tuple[str, list[tuple[str, str]], list[str]], wrapped: bool
) -> None:
    symbol, pairs, numbers = event
    room = Room([symbol, "OTHER"])
    frame = frames(symbol, pairs, wrapped)
    assert check(frame, room) == (OK if all(map(is_plain, numbers)) else NOT_EXACT)
    if all(map(is_plain, numbers)):
        assert check(frame, Room(["OTHER"])) == NOT_KNOWN


@settings(max_examples=400, deadline=None)
@given(events(), st.booleans(), st.randoms(use_true_random=False))
def test_order_of_keys_does_not_matter(
    event: tuple[str, list[tuple[str, str]], list[str]], wrapped: bool, random: Any
) -> None:
    symbol, pairs, numbers = event
    random.shuffle(pairs)
    status = check(frames(symbol, pairs, wrapped), Room([symbol]))
    assert status == (OK if all(map(is_plain, numbers)) else NOT_EXACT)


@settings(max_examples=600, deadline=None)
@given(
    events(),
    st.lists(
        st.tuples(st.one_of(st.sampled_from(string.printable), st.text(max_size=3)), extra_values), max_size=3
    ),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_extra_keys_of_any_type(
    event: tuple[str, list[tuple[str, str]], list[str]],
    extra: list[tuple[str, str]],
    wrapped: bool,
    random: Any,
) -> None:
    """Also keys that mean something elsewhere, and repeated ones: JSON's last one wins, whatever its type."""
    symbol, pairs, _ = event
    named = [(orjson.dumps(key)[1:-1].decode(), value) for key, value in extra if _encodes(key)]
    for pair in named:
        pairs.insert(random.randrange(len(pairs) + 1), pair)
    check(frames(symbol, pairs, wrapped), Room([symbol]))


def _encodes(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


@pytest.mark.parametrize(
    "value", ["null", "true", "false", "0", "12345678901234567", '""', '"plain"', '"ключ"']
)
@pytest.mark.parametrize("key", sorted(set(string.ascii_letters + "$#~!0") - MEANT))
def test_plain_extra_keys_stay_in_the_kernel(key: str, value: str) -> None:
    for event in (trade("BTCUSDT", 5), agg("BTCUSDT", 5, 1, 2), quote("BTCUSDT", 5)):
        if key in event:
            continue
        assert check(raw(event | {key: value})) == OK
        assert check(combined("btcusdt@any", raw({key: value} | event))) == OK


@pytest.mark.parametrize("value", ["null", "true", "7", '"7"', '"x"', "[]", "{}", "-1", "1.5", '"\\n"'])
@pytest.mark.parametrize("event", [trade("BTCUSDT", 5), agg("BTCUSDT", 5, 1, 2), quote("BTCUSDT", 5)])
def test_a_repeated_key_is_for_the_slow_path(event: dict[str, str], value: str) -> None:
    for key in event:
        assert check(raw([*event.items(), (key, value)])) == NOT_MINE
        assert check(raw([(key, value), *event.items()])) == NOT_MINE


@pytest.mark.parametrize("value", ['"5.00000000"', "7", "true", "null", '"x"'])
@pytest.mark.parametrize("event", [trade("BTCUSDT", 5), agg("BTCUSDT", 5, 1, 2), quote("BTCUSDT", 5)])
def test_keys_of_another_event_change_nothing(event: dict[str, str], value: str) -> None:
    """Refused or ignored: a trade's quantity is q, even when there is a B behind it."""
    for key in sorted(MEANT - event.keys()):
        check(raw(event | {key: value}))
        check(raw({key: value} | event))


@pytest.mark.parametrize("wrapped", [False, True])
def test_old_trades_with_order_ids(wrapped: bool) -> None:
    pairs = list(trade("BTCUSDT", 5).items())
    pairs[6:6] = [("b", "20720542158"), ("a", "20720542592")]
    assert pairs[5][0] == "q"
    assert check(frames("BTCUSDT", pairs, wrapped)) == OK


FRAMES = [
    payload if not wrapped else combined("btcusdt@x", payload)
    for wrapped in (False, True)
    for payload in (
        raw(trade("BTCUSDT", 3071245454)),
        raw([*list(trade("AB", 12).items())[:6], ("b", "1"), ("a", "22"), ("T", "5"), ("m", "true")]),
        raw(agg("AB", 410000777, 990000101, 990000104)),
        raw(quote("币安人生USDT", 71000000512)),
        raw(trade("A", 1, "0.1", q='"12345678.2345678"') | {"X": '"ж~"', "Y": "null"}),
    )
]
BEHIND = [
    bytes(64),
    b"0" * 96,
    b'"' * 64,
    b"}" * 64,
    b'"}}' + b"}" * 61,
    b'000.5","q":"1.5","T":1723161255207,"m":true,"M":true}}' + bytes(64),
    b"\xff" * 64,
    b"\\" * 64,
    b"rue}}" + b"e}" * 40,
]


@pytest.mark.parametrize("behind", BEHIND)
def test_what_lies_behind_the_payload_does_not_matter(behind: bytes) -> None:
    for frame in FRAMES:
        assert check(frame, behind=behind) == OK
        for size in range(len(frame)):
            cut = frame[:size]
            assert check(cut, behind=behind) == NOT_MINE
            assert check(cut, behind=frame[size:] + bytes(64)) == NOT_MINE


def check_changed(changed: list[bytes]) -> int:
    """Decode all; those that are OK must equal the oracle. Returns how many were OK."""
    statuses, rows = ROOM.decode_all(changed)
    good = np.flatnonzero(statuses == OK)
    for index in good:
        expected = ROOM.expected(changed[index])
        assert expected is not None, changed[index]
        assert rows[index].tobytes() == expected[0].tobytes(), changed[index]
    return len(good)


@pytest.mark.parametrize("frame", FRAMES)
def test_every_single_byte_changed(frame: bytes) -> None:
    size = len(frame)
    texts = np.tile(np.frombuffer(frame, np.uint8), (size * 256, 1))
    places, values = np.divmod(np.arange(size * 256), 256)
    texts[np.arange(size * 256), places] = values
    memory = np.concatenate([texts.reshape(-1), np.zeros(64, np.uint8)])
    statuses, rows = ROOM.decode_at(memory, np.arange(size * 256 + 1) * size)
    good = np.flatnonzero(statuses == OK)
    assert size <= len(good) < size * 64
    for index in good:
        changed = texts[index].tobytes()
        expected = ROOM.expected(changed)
        assert expected is not None, changed
        assert rows[index].tobytes() == expected[0].tobytes(), changed


@pytest.mark.parametrize("frame", FRAMES)
def test_a_byte_put_in_or_taken_out(frame: bytes) -> None:
    less = [frame[:at] + frame[at + 1 :] for at in range(len(frame))]
    inserted = b'\0\t 0.5"\\{}[],:-+eEtTuaAbpqsmMn\x7f\x80\xbd\xff'
    more = [frame[:at] + bytes([byte]) + frame[at:] for at in range(len(frame) + 1) for byte in inserted]
    assert 0 < check_changed(less) < len(less)
    assert 0 < check_changed(more) < len(more) / 4


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(FRAMES),
    st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 4), st.binary(max_size=4)), min_size=1, max_size=4
    ),
)
def test_several_changes(frame: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    for at, length, put in changes:
        at %= len(frame)
        frame = frame[:at] + put + frame[at + length :]
    check(frame)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=300), st.sampled_from([b"", b'{"e":"trade","E":', b'{"stream":"', b'{"u":1,"s":"A"'])
)
def test_noise(noise: bytes, head: bytes) -> None:
    check(head + noise)


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (b"", NOT_MINE),
        (b"{}", NOT_MINE),
        (b'{"result":null,"id":11}', NOT_MINE),
        (raw(trade("NOSUCH", 1)), NOT_KNOWN),
        (raw(trade("BTCUSDT", 1, "1234567890123456789.5")), NOT_EXACT),
        (raw(trade("BTCUSDT", 1, "9" * 80)), NOT_MINE),  # so many digits that the reader gives up at once
        (raw(trade("BTCUSDT", 1, "1e5")), NOT_MINE),
        (raw(trade("BTCUSDT", 1, "-1.0")), NOT_MINE),
        (raw(trade("BTCUSDT", 1, "1.")), NOT_MINE),
        (raw(trade("BTCUSDT", 1, ".5")), NOT_MINE),
        (raw(trade("BTCUSDT", 1, "1.5.5")), NOT_MINE),
        (raw(trade("BTCUSDT", 1, "")), NOT_MINE),
        (raw(trade("BTCUSDT", 10**18)), NOT_MINE),
        (raw(trade("BTCUSDT", -1)), NOT_MINE),
        (raw(trade("BTCUSDT", 1) | {"t": "01"}), NOT_MINE),
        (raw(trade("BTCUSDT", 1) | {"m": "fa1se"}), NOT_MINE),
        (raw(trade("BTCUSDT", 1) | {"m": "null"}), NOT_MINE),
        (raw(trade("BTCUSDT", 1) | {"e": '"trades"'}), NOT_MINE),
        (raw(trade("BTCUSDT", 1) | {"e": '"aggTrade"'}), NOT_MINE),
        (raw(agg("BTCUSDT", 1, 5, 4)), NOT_MINE),
        (raw(quote("BTCUSDT", 1) | {"e": "null"}), NOT_MINE),
        (raw(trade("A\0", 1)), NOT_KNOWN),  # not "A", although its words are the same
        (raw(trade("Y" * 24, 1)), NOT_MINE),
        (raw(trade("BTCUSDT", 1)) + b" ", NOT_MINE),
        (raw(trade("BTCUSDT", 1)).replace(b":", b": "), NOT_MINE),
        (combined("a", raw(trade("BTCUSDT", 1)))[:-1], NOT_MINE),
        (combined("a\\n", raw(trade("BTCUSDT", 1))), NOT_MINE),
        (combined("a\t", raw(trade("BTCUSDT", 1))), NOT_MINE),
    ],
)
def test_statuses(frame: bytes, status: int) -> None:
    assert check(frame) == status


@pytest.mark.parametrize(
    ("name", "good"),
    [
        (b"\xc2\x80", True), (b"\xc1\xbf", False), (b"\xdf\xbf", True), (b"\xe0\x9f\xbf", False),
        (b"\xe0\xa0\x80", True), (b"\xed\x9f\xbf", True), (b"\xed\xa0\x80", False), (b"\xef\xbf\xbf", True),
        (b"\xf0\x8f\xbf\xbf", False), (b"\xf0\x90\x80\x80", True), (b"\xf4\x8f\xbf\xbf", True),
        (b"\xf4\x90\x80\x80", False), (b"\xf5\x80\x80\x80", False), (b"\x80", False), (b"\xe4\xba", False),
        (b"\xf0\x90\x80", False), (b"\x7f", True), (b"\x1f", False),
    ],
)  # fmt: skip
def test_stream_names_are_well_formed_utf8(name: bytes, good: bool) -> None:
    for at in range(9):
        stream = b"n" * at + name + b"usdt@trade"
        frame = b'{"stream":"' + stream + b'","data":' + raw(trade("BTCUSDT", 1)) + b"}"
        assert (check(frame) == OK) is good
        assert good is (ROOM.expected(frame) is not None)


def test_the_stream_name_is_noted() -> None:
    frame = np.frombuffer(combined("btcusdt@trade", raw(trade("BTCUSDT", 1))) + bytes(64), np.uint8)
    address = int(frame.ctypes.data)
    ROOM.decode_at(frame, np.array([0, len(frame) - 64]))
    start, end = int(ROOM.scratch[STREAM_START // 8]), int(ROOM.scratch[STREAM_END // 8])
    assert frame.tobytes()[start - address : end - address] == b"btcusdt@trade"
    ROOM.decode(raw(trade("BTCUSDT", 1)))
    assert ROOM.scratch[STREAM_START // 8] == 0
    assert len(ROOM.scratch) * 8 == SCRATCH_BYTES
