"""Decimal strings to float64: bit for bit what float() makes of them, or a clear no."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.ingest.oracle import DECIMAL, is_plain
from tradeback.ingest.batch import parse_decimals
from tradeback.ingest.decimals import EXACT, INEXACT, MALFORMED

POWERS = np.array([float(10**power) for power in range(23)])
STRINGS = 100_000


def parse(texts: list[bytes], behind: bytes = bytes(128)) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(values, statuses) of decimals that stand in memory one behind the other, each with its quote."""
    memory = np.frombuffer(b'"'.join(texts) + b'"' + behind, np.uint8)
    offsets = np.cumsum([0, *(len(text) + 1 for text in texts)])
    out = np.full((len(texts), 2), np.nan)
    odd = parse_decimals(
        int(POWERS.ctypes.data),
        int(memory.ctypes.data),
        int(offsets.ctypes.data),
        len(texts),
        int(out.ctypes.data),
    )
    statuses = out[:, 1].astype(np.int64)
    assert odd == np.count_nonzero(statuses != EXACT)
    return out[:, 0], statuses


def random_decimal(rng: random.Random) -> str:
    """Typical, padded, tiny, huge and long ones, with leading zeros now and then."""
    shape = rng.randrange(6)
    if shape <= 1:
        return f"{rng.randrange(10 ** rng.randint(1, 9))}.{rng.randrange(10**8):08d}"
    if shape == 2:
        whole, fraction = str(rng.randrange(10 ** rng.randint(1, 15))), str(rng.randrange(10**4))
        return f"{whole}.{fraction}{'0' * rng.randrange(12)}"
    if shape == 3:
        return f"0.{'0' * rng.randrange(22)}{rng.randrange(1, 10 ** rng.randint(1, 9))}"
    if shape == 4:
        return "".join(rng.choices("0123456789", k=rng.randint(1, 28)))
    digits = "".join(rng.choices("0123456789", k=rng.randint(2, 28)))
    dot = rng.randint(1, len(digits) - 1)
    return f"{digits[:dot]}.{digits[dot:]}"


def test_100000_random_decimals() -> None:
    rng = random.Random(11)
    texts = [random_decimal(rng) for _ in range(STRINGS)]
    values, statuses = parse([text.encode() for text in texts])
    plain = np.array([is_plain(text) for text in texts])
    assert (statuses == np.where(plain, EXACT, INEXACT)).all()
    expected = np.array([float(text) for text in texts])
    assert values[plain].tobytes() == expected[plain].tobytes()
    assert np.count_nonzero(plain) > STRINGS * 0.6, "the fast path must be the usual one"
    assert np.count_nonzero(~plain) > STRINGS * 0.05, "and both must have been tried"


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text("0123456789.", max_size=30), st.text("0123456789.+-eE_ x\0", max_size=12)))
def test_what_is_no_decimal_is_malformed(text: str) -> None:
    values, statuses = parse([text.encode()])
    if DECIMAL.fullmatch(text):
        assert statuses[0] == (EXACT if is_plain(text) else INEXACT)
        if statuses[0] == EXACT:
            assert values[0].tobytes() == np.float64(text).tobytes()
    else:
        assert statuses[0] == MALFORMED


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("0", EXACT),
        ("0.00000000", EXACT),
        ("9007199254740992", EXACT),  # 2^53
        ("9007199254740993", INEXACT),
        ("90071992.54740992", EXACT),
        ("90071992.54740993", INEXACT),
        ("9999999.99999999", EXACT),
        ("90071992547.40992000000000000000", EXACT),
        ("0.0000000000000001", EXACT),
        ("0." + "0" * 17 + "1", INEXACT),  # 19 digits count
        ("0" * 17 + "1", EXACT),
        ("0" * 18 + "1", INEXACT),
        ("1." + "0" * 62, EXACT),
        ("1" + "0" * 64, INEXACT),
        ("123456789012345678901234567890", INEXACT),
        ("1.", MALFORMED),
        (".1", MALFORMED),
        (".", MALFORMED),
        ("", MALFORMED),
        ("1..2", MALFORMED),
        ("1.2.3", MALFORMED),
        ("1234567.1234567x", MALFORMED),
        ("12345678.12345678.", MALFORMED),
        ("-1.00000000", MALFORMED),
        ("+1", MALFORMED),
        (" 1", MALFORMED),
        ("1e5", MALFORMED),
        ("1_0", MALFORMED),
        ("inf", MALFORMED),
        ("٣.5", MALFORMED),
        ("1:5", MALFORMED),
        ("1/5", MALFORMED),
    ],
)
def test_edges(text: str, status: int) -> None:
    values, statuses = parse([text.encode()])
    assert statuses[0] == status
    if status == EXACT:
        assert values[0] == float(text)


@pytest.mark.parametrize("behind", [b"0" * 128, b'"' * 128, b"." * 128, b"\xff" * 128])
def test_bytes_behind_the_quote_do_not_count(behind: bytes) -> None:
    texts = ["1", "12.5", "0.00000001", "171.24000000", "12345678", "9" * 15, "1234567.12345678"]
    for text in texts:
        values, statuses = parse([text.encode()], behind)
        assert (values[0], statuses[0]) == (float(text), EXACT)
