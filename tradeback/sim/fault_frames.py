"""Frames that an exchange should not send, and telling one frame from another. Pure."""

import random
import re
from hashlib import blake2b

from tradeback.sim.channels import frame

_ID = re.compile(rb'"[tau]":(\d+)')
_EVENT = re.compile(rb'"e":"(\w+)"')
_SYMBOL = re.compile(rb'"s":"([^"]+)"')
_STREAM = b'{"stream":"'
REPLY = "reply"
"""What stands for the stream of an answer to a request."""
ANNOUNCEMENT = "!serverShutdown"
HUGE_BYTES = 300_000
TOO_BIG_BYTES = 5 * 1024 * 1024
"""No client has to take a message of this size."""


def payload_of(data: bytes) -> bytes:
    """The payload of one unmasked frame."""
    size = data[1]
    return data[10:] if size == 127 else data[4:] if size == 126 else data[2:]


def stream_of(data: bytes) -> str:
    """The stream of one complete frame, combined or raw; REPLY for an answer, "" when it cannot be told."""
    payload = payload_of(data)
    if payload.startswith(_STREAM):
        name, quote, _ = payload[len(_STREAM) :].partition(b'"')
        return name.decode("latin-1") if quote else ""
    if payload.startswith((b'{"result"', b'{"error"')):
        return REPLY
    event, symbol = _EVENT.search(payload), _SYMBOL.search(payload)
    if event is not None and event[1] == b"serverShutdown":
        return ANNOUNCEMENT
    if symbol is None:
        return ""
    return f"{symbol[1].decode('latin-1').lower()}@{event[1].decode() if event else 'bookTicker'}"


def id_of(data: bytes) -> int:
    """The id of a trade, an aggregate or a book update; -1 for what has none."""
    found = _ID.search(payload_of(data))
    return int(found[1]) if found else -1


def chance_of(*words: object) -> float:
    """A number in [0, 1) that depends on the words alone: the same for every connection that asks."""
    return int.from_bytes(blake2b(repr(words).encode(), digest_size=6).digest(), "big") / 2**48


def shuffle_streams(frames: list[bytes], rng: random.Random) -> list[bytes]:
    """The same frames in another order; those of one stream keep theirs."""
    queues: dict[str, list[bytes]] = {}
    order = []
    for data in frames:
        stream = stream_of(data)
        queues.setdefault(stream, []).append(data)
        order.append(stream)
    rng.shuffle(order)
    places = dict.fromkeys(queues, 0)
    mixed = []
    for stream in order:
        mixed.append(queues[stream][places[stream]])
        places[stream] += 1
    return mixed


def _trade(symbol: str, **fields: str) -> bytes:
    values = {
        "e": '"trade"', "E": "1781000000124000", "s": f'"{symbol}"', "t": "990000101",
        "p": '"171.24000000"', "q": '"3.51000000"', "T": "1781000000123000", "m": "false", "M": "true",
        **fields,
    }  # fmt: skip
    inside = ",".join(f'"{key}":{value}' for key, value in values.items())
    return f'{{"stream":"{symbol.lower()}@trade","data":{{{inside}}}}}'.encode()


_WRONG = (
    {"t": '"990000101"'}, {"p": "171.24"}, {"q": "null"}, {"t": "-5"}, {"t": "9.5"}, {"T": '"now"'},
    {"m": '"false"'}, {"p": '"-171.24000000"'}, {"p": '"1e3"'}, {"p": '""'}, {"q": '"NaN"'}, {"t": "{}"},
    {"p": '"171.24.0"'}, {"e": "7"}, {"t": "990000101990000101990000101"},
)  # fmt: skip
"""Single fields of a trade that are not what they must be."""


def garbage(how: str, rng: random.Random, symbol: str, neighbour: bytes) -> bytes:
    """One frame that means nothing. `symbol` is listed; `neighbour` is a good frame of the connection."""
    if how == "bad_json":
        return frame(b'{"stream":"%b@trade","data":{"e":"trade",,}}' % symbol.lower().encode())
    if how == "truncated":
        payload = payload_of(neighbour)
        return frame(payload[: rng.randrange(1, max(2, len(payload)))])
    if how == "binary":
        size = rng.randrange(0, 125)
        return bytes((0x82, size)) + rng.randbytes(size)
    if how == "bad_utf8":
        return frame(b'{"stream":"\xff\xfe\xc0","data":{"e":"trade","s":"\xed\xa0\x80"}}')
    if how == "unknown_event":
        return frame(b'{"stream":"%b@novelty","data":{"e":"novelty","E":1,"s":"%b","t":990000101}}'
                     % (symbol.lower().encode(), symbol.encode()))  # fmt: skip
    if how == "wrong_types":
        return frame(_trade(symbol, **rng.choice(_WRONG)))
    if how == "unknown_symbol":
        return frame(_trade("NOSUCHCOIN"))
    if how == "huge":
        return frame(b'{"stream":"huge@novelty","data":{"e":"novelty","x":"%b"}}' % (b"x" * HUGE_BYTES))
    if how == "no_object":
        return frame(rng.choice((b"null", b"[]", b"17", b'"text"', b"[[[[", b"{}", b"true", b" ")))
    if how == "stray_pong":
        return b"\x8a\x03abc"
    return frame(b"")


def broken_bytes(how: str, rng: random.Random) -> bytes:
    """Bytes that are no WebSocket frame of a server, or one too big: the client has to give up on them."""
    if how == "reserved_opcode":
        return bytes((0x83 + rng.randrange(5), 3)) + b"abc"
    if how == "masked":
        return b"\x81\x83\x01\x02\x03\x04abc"
    if how == "reserved_bit":
        return bytes((0x81 | rng.choice((0x10, 0x20, 0x40)), 3)) + b"abc"
    if how == "long_control":
        return b"\x89\x7e\x00\x80" + b"p" * 128
    if how == "endless":
        return b"\x81\x7f" + b"\xff" * 8
    return b"\x81\x7f" + TOO_BIG_BYTES.to_bytes(8, "big") + b" " * 4096
