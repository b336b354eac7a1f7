"""ops.log: JSON lines, levels, masked secrets, repeats held back."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.ops import log


def lines_of(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_part_and_fields() -> None:
    stream = io.StringIO()
    log.configure("info", stream)
    log.get_log("line").info("connected", symbol="币安人生USDT", attempt=3)
    (line,) = lines_of(stream)
    assert line["event"] == "connected"
    assert (line["part"], line["symbol"], line["attempt"]) == ("line", "币安人生USDT", 3)
    assert line["level"] == "info"
    assert str(line["timestamp"]).endswith("Z")


@pytest.mark.parametrize("level", list(log.LEVELS))
def test_lower_levels_are_left_out(level: str) -> None:
    stream = io.StringIO()
    log.configure(level, stream)
    writer = log.get_log("tape")
    for name in log.LEVELS:
        getattr(writer, name)(name)
    wanted = [name for name, rank in log.LEVELS.items() if rank >= log.LEVELS[level]]
    assert [line["event"] for line in lines_of(stream)] == wanted


@pytest.mark.parametrize("console", [False, True])
def test_secrets_are_masked_wherever_they_stand(console: bool) -> None:
    stream = io.StringIO()
    log.configure("debug", stream, console=console)
    writer = log.get_log("api").bind(session_token="hunter2")
    writer.info(
        "asked", Authorization="hunter2", headers={"X": "1", "Cookie": {"deep": "hunter2"}}, user="me"
    )
    writer.info("deep", outer={"inner": {"api_key": "hunter2"}}, listed=[{"password": "hunter2"}])
    assert "hunter2" not in stream.getvalue()
    assert "me" in stream.getvalue()


def test_an_error_brings_its_traceback_in_one_line() -> None:
    stream = io.StringIO()
    log.configure("info", stream)
    try:
        raise ValueError("broken")
    except ValueError:
        log.get_log("feed").error("failed", exc_info=True)
    (line,) = lines_of(stream)
    assert "ValueError: broken" in str(line["exception"])


def test_console_lines_are_readable() -> None:
    stream = io.StringIO()
    log.configure("info", stream, console=True)
    log.get_log("line").warning("lost", attempt=2)
    assert "lost" in stream.getvalue()
    assert "attempt=2" in stream.getvalue()


def test_what_json_does_not_know_is_written_as_text() -> None:
    stream = io.StringIO()
    log.configure("info", stream)
    log.get_log("tape").info("odd", raw=b"\xff", error=ValueError("x"), keys={1: 2})
    (line,) = lines_of(stream)
    assert line["raw"] == repr(b"\xff")
    assert line["keys"] == {"1": 2}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3_000_000_000)), max_size=50))
def test_repeats_are_held_back_and_counted(steps: list[tuple[str, int]]) -> None:
    limiter = log.RepeatLimiter(interval_s=2.0)
    now, held = 0, {"a": 0, "b": 0}
    shown_at: dict[str, int] = {}
    for key, pause_ns in steps:
        now += pause_ns
        answer = limiter.allow(key, now)
        if key not in shown_at or now - shown_at[key] >= 2_000_000_000:
            assert answer == held[key]
            shown_at[key], held[key] = now, 0
        else:
            assert answer is None
            held[key] += 1


def test_the_limiter_does_not_grow_without_bound() -> None:
    limiter = log.RepeatLimiter()
    for number in range(3 * log.REPEAT_KEYS_MAX):
        assert limiter.allow(f"key {number}", 0) == 0
    assert limiter.allow(f"key {3 * log.REPEAT_KEYS_MAX - 1}", 1) is None
    assert limiter.allow("key 0", 1) == 0
