"""Ways in which a frame's payload may be wrong. Seeded: the same chance breaks it the same way."""

import random
from collections.abc import Callable

PAYLOAD_MAX = 4_000
_DIGITS = b"0123456789"
_LOADED = (
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\\",
    b"\x00",
    b"\xff",
    b"\x80",
    b"e",
    b"-",
    b".",
    b"+",
    b" ",
)
_WORDS = (
    b"null", b"true", b"NaN", b"Infinity", b"1e400", b"-0", b"18446744073709551616", b"9" * 40, b"0" * 400,
    b'"\\ud800"', b"\xf0\x9f\x92\xa9", b'{"e":"trade"}', b'"s":"BTCUSD"', b'"t":-1', b"\r\n", b"/**/",
    b"\x81\x05",
)  # fmt: skip


def _flip(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _replace(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] = chance.randrange(256)


def _loaded(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data))
    data[place : place + chance.randrange(2)] = chance.choice(_LOADED)


def _remove(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data))
    del data[place : place + chance.choice((1, 1, 2, 8, 40))]


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _repeat(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data))
    piece = data[place : place + chance.choice((1, 4, 20, 200))]
    data[place:place] = piece * chance.choice((1, 2, 9))


def _word(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data))
    data[place : place + chance.choice((0, 1, 5))] = chance.choice(_WORDS)


def _digits(data: bytearray, chance: random.Random) -> None:
    """More, fewer or other digits in a number: still well-formed as often as not."""
    places = [index for index, byte in enumerate(data) if byte in _DIGITS]
    if places:
        place = chance.choice(places)
        data[place : place + chance.randrange(3)] = bytes(chance.choices(_DIGITS, k=chance.randrange(25)))


def _swap(data: bytearray, chance: random.Random) -> None:
    """Two members of the object change places."""
    members = bytes(data).split(b",")
    if len(members) > 1:
        one, other = chance.randrange(len(members)), chance.randrange(len(members))
        members[one], members[other] = members[other], members[one]
        data[:] = b",".join(members)


WAYS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _replace, _loaded, _remove, _cut, _repeat, _word, _digits, _swap,
)  # fmt: skip


def mutated(payload: bytes, chance: random.Random) -> bytes:
    """The payload with one to four things wrong; may be empty, never longer than PAYLOAD_MAX."""
    data = bytearray(payload)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if data:
            chance.choice(WAYS)(data, chance)
    return bytes(data[:PAYLOAD_MAX])
