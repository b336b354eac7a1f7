"""ops.log_text: whatever is logged, a line stays a line, secrets stay secret, and nothing has no end."""

import json
import string
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.ops.log_text import DEPTH_MAX, ITEMS_MAX, MASK, TEXT_MAX, Cleaner

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    max_leaves=12,
)
lone_surrogates = st.text(st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010))


@settings(deadline=None)
@given(st.dictionaries(st.text(), anything | lone_surrogates, max_size=5))
def test_any_fields_make_one_line_that_reads_back(fields: dict[str, Any]) -> None:
    line = orjson.dumps(Cleaner().fields(fields)).decode()
    assert len(line.splitlines()) == 1, "by any idea of what ends a line"
    assert not set(line) & {chr(code) for code in (*range(32), *range(127, 160))}
    json.loads(line)


@pytest.mark.parametrize(
    "evil",
    ["a\nb", "a\r\n{}", "\x1b[31mred", "\x9b31m", "a\u2028b", "a\u2029b", "\u202ereversed", "\x00", "\x7f"],
)
def test_control_characters_are_written_as_escapes(evil: str) -> None:
    cleaner = Cleaner()
    for found in (cleaner.text(evil), cleaner.fields({"reason": [evil]})["reason"][0]):
        assert not set(found) & set("\n\r\x00\x1b\x7f\x9b\u2028\u2029\u202e")
        assert "\\" in found
    assert cleaner.text("币安人生USDT ü €") == "币安人生USDT ü €"


def test_a_traceback_keeps_its_lines_but_none_begins_like_the_log() -> None:
    text = 'Traceback:\n  File "x"\nValueError: a\n{"level": "error", "event": "forged"}\x1b[2J'
    lines = Cleaner().fields({"exception": text})["exception"].split("\n")
    assert len(lines) == 4
    assert all(line.startswith("  ") for line in lines[1:])
    assert "\x1b" not in lines[3]


@pytest.mark.parametrize(
    "text",
    [
        "nats://user:hunter22@host:4222 refuses",
        "redis://:hunter22@cache",
        "Authorization: Bearer hunter22hunter22",
        "authorization=Basic hunter22",
        "GET /api/v1/ws?token=hunter22&x=1",
        '{"password": "hunter22"}',
        "api_key: hunter22",
        "asked with bearer hunter22.hunter22",
    ],
)
def test_secrets_inside_of_texts_are_masked(text: str) -> None:
    found = Cleaner().fields({"reason": text, "raw": text.encode(), "error": ValueError(text)})
    assert "hunter22" not in str(found)
    assert MASK in found["reason"]


def test_what_looks_like_a_secret_but_is_none_stays() -> None:
    for text in (
        "https://api.binance.com/api/v3/klines",
        "the token is unknown",
        "10:42 at 3@5",
        "a=b, c: d",
    ):
        assert Cleaner().text(text) == text


@settings(deadline=None)
@given(st.text(string.ascii_letters + string.punctuation, min_size=6, max_size=30), st.text(max_size=20))
def test_known_secrets_are_masked_wherever_they_stand(secret: str, around: str) -> None:
    found = Cleaner([secret, "x"]).text(f"{around} {secret} {around}")
    assert secret not in found.replace(MASK, "").replace("\\", "") or secret in around


def test_nothing_is_without_end() -> None:
    deep: Any = "end"
    for _ in range(3 * DEPTH_MAX):
        deep = [deep]
    found = Cleaner().fields(
        {"text": "x" * 10**6, "list": list(range(10**5)), "deep": deep, "exception": "y\n" * 10**6}
    )
    assert len(found["text"]) == TEXT_MAX + 3
    assert len(found["list"]) == ITEMS_MAX
    assert "end" not in str(found["deep"])
    assert len(orjson.dumps(found)) < 100_000


def test_numbers_of_all_kinds() -> None:
    given_ = {"big": 2**70, "small": -(2**70), "np": np.int64(5), "f": np.float64(0.5), "b": np.bool_(True)}
    found = Cleaner().fields(given_ | {"row": np.arange(3), "rows": np.zeros(10**6), "nan": float("nan")})
    assert (found["big"], found["np"], found["f"], found["b"]) == (str(2**70), 5, 0.5, True)
    assert found["row"] == [0, 1, 2]
    orjson.dumps(found)


def test_a_broken_repr_costs_no_line() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert "Broken" in Cleaner().fields({"it": Broken()})["it"]
