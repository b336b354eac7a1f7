"""ops.log: JSON lines, levels by component, masked secrets, repeats held back; also of other packages."""

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tradeback.model.config import Config, InfluxConfig, MysqlConfig, NatsConfig, RedisConfig
from tradeback.ops import log
from tradeback.ops.components import LOGGERS
from tradeback.ops.level_file import LevelFile
from tradeback.ops.repeats import BURST


def lines_of(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Nothing of these tests stays in the process."""
    chain = structlog.get_config()
    loggers = [logging.getLogger(name) for name in (None, *LOGGERS)]
    levels, handlers = [held.level for held in loggers], logging.getLogger().handlers[:]
    yield
    log.finish()
    log.thresholds.set_run_time({})
    log.thresholds.configure("info", [])
    structlog.configure(**chain)
    logging.captureWarnings(capture=False)
    logging.getLogger().handlers[:] = handlers
    for held, level in zip(loggers, levels, strict=True):
        held.setLevel(level)


def test_a_line_is_one_json_object_with_component_and_fields() -> None:
    stream = io.StringIO()
    log.configure("info", stream, process="engine")
    log.get_log("line").info("connected", symbol="币安人生USDT", attempt=3)
    (line,) = lines_of(stream)
    assert line["event"] == "connected"
    assert list(line)[:5] == ["timestamp", "level", "component", "process", "event"]
    assert (line["component"], line["symbol"], line["attempt"]) == ("line", "币安人生USDT", 3)
    assert line["process"] == "engine"
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


def test_levels_are_by_component_and_change_at_once() -> None:
    stream = io.StringIO()
    log.configure("warning", stream, own=["line=debug"])
    line, feed = log.get_log("line"), logging.getLogger("tradeback.feed")
    line.debug("one")
    feed.info("two")
    log.get_log("worker:3").info("three")
    log.thresholds.set_run_time({"line": "error", "worker": "info"})
    line.bind(more=1).warning("four")
    log.get_log("worker:3").info("five")
    assert [(held["component"], held["event"]) for held in lines_of(stream)] == [
        ("line", "one"),
        ("worker", "five"),
    ]


def test_other_packages_log_in_the_same_shape() -> None:
    stream = io.StringIO()
    log.configure("info", stream, process="engine")
    logging.getLogger("tradeback.sinks").warning("%s: %s\n{}", "influx", "token=hunter22")
    logging.getLogger("asyncio").info("too little")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("some.package").exception("it failed")
    logging.getLogger("other").critical("the end")
    sinks, failed, end = lines_of(stream)
    assert (sinks["component"], sinks["level"], sinks["process"]) == ("sinks", "warning", "engine")
    assert sinks["event"] == "influx: token=***\\n{}"
    assert (failed["component"], failed["logger"]) == ("library", "some.package")
    assert "ValueError: broken" in str(failed["exception"])
    assert end["level"] == "error"


def test_repeats_are_held_back_and_told_with_their_number() -> None:
    stream = io.StringIO()
    log.configure("info", stream)
    for number in range(1_000):
        log.get_log("line").warning("lost", number=number)
        logging.getLogger("tradeback.sinks").error("call %d failed", number)
    log.finish()
    for component in ("line", "sinks"):
        shown = [line for line in lines_of(stream) if line["component"] == component]
        assert len(shown) == BURST + 1
        assert shown[-1]["suppressed"] == 1_000 - BURST - 1
    assert lines_of(stream)[-2]["number"] == 999


@pytest.mark.parametrize("console", [False, True])
def test_nobody_writes_a_line_of_his_own(console: bool) -> None:
    stream = io.StringIO()
    log.configure("info", stream, console=console)
    evil = 'x\n2026-01-01 [error] forged\r\n{"level":"error","event":"forged"}\x1b[2J\u2028forged'
    log.get_log("api").info("asked", agent=evil, listed=[{evil: evil}])
    log.get_log("api").info(evil)
    logging.getLogger("tradeback.api").warning("asked by %s", evil)
    try:
        raise ValueError(evil)
    except ValueError:
        log.get_log("api").error("failed", exc_info=True)
    lines = stream.getvalue().split("\n")[:-1]
    begun = [line for line in lines if not line.startswith("  ") and not line.startswith("Traceback")]
    assert len(begun) == 4
    assert "\x1b[2J" not in stream.getvalue()
    assert "\u2028" not in stream.getvalue()


def test_secrets_of_the_configuration_are_masked_wherever_they_stand() -> None:
    config = Config(
        mysql=MysqlConfig(host="m", password="pass one"),
        influx=InfluxConfig(url="http://i", token="user:pass-two"),
        redis=RedisConfig(addr="r", password="pass three"),
        nats=NatsConfig(url="nats://u:pass-four@a:1,nats://pass-five@b:2"),
    )
    stream = io.StringIO()
    log.configure("info", stream, secrets=log.secrets_of(config))
    log.get_log("sinks").info(
        "tried pass one", reason="with pass-two", all=["pass three", b"pass-four pass-five"]
    )
    text = stream.getvalue()
    assert not any(
        secret in text for secret in ("pass one", "pass-two", "pass three", "pass-four", "pass-five")
    )


async def test_run_time_levels_hold_from_the_start_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.exchange.harness import until
    from tradeback.ops import level_file

    monkeypatch.setattr(level_file, "LOOK_S", 0.005)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    LevelFile(tmp_path).write({"line": "debug"})
    log.begin(msgspec.structs.replace(Config(), data_dir=str(tmp_path)), "engine", console=False)
    log.get_log("line").debug("one")
    log.follow_levels()
    LevelFile(tmp_path).write({"line": "error", "feed": "debug"})
    await until(lambda: stream.getvalue().count("log levels set") == 2)
    log.get_log("line").warning("two")
    logging.getLogger("tradeback.feed").debug("three")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("four", stacklevel=1)
    events = [str(line["event"]) for line in lines_of(stream)]
    told = "log levels set at run time"
    assert events[:4] == [told, "one", told, "three"]
    assert "four" in events[4]
    assert lines_of(stream)[2]["levels"] == {"line": "error", "feed": "debug"}
    watch = log._level_watch
    assert watch is not None
    watch.stop()


def test_a_supervisor_loads_little_for_its_log() -> None:
    """numpy alone is 20 MB: a process that only logs has no use for it."""
    script = (
        "import sys; from tradeback.ops import log; print(*sorted({'numpy', 'structlog'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
