"""ops.log_output: a log that nobody reads stops nobody, and what is held back comes by itself."""

import asyncio
import fcntl
import io
import os
import threading

import orjson
import pytest

from tests.exchange.harness import until
from tradeback.ops.log_output import Delivery, Output
from tradeback.ops.repeats import Event, Repeats


def to_json(event: Event) -> str:
    return orjson.dumps(event).decode()


def event(number: int, text: str = "it repeats") -> Event:
    return {"timestamp": "now", "level": "info", "component": "line", "event": text, "number": number}


def read_all(descriptor: int) -> list[str]:
    """What stands in a pipe now."""
    os.set_blocking(descriptor, False)
    data = b""
    while True:
        try:
            part = os.read(descriptor, 65_536)
        except BlockingIOError:
            part = b""
        if not part:
            return data.decode().splitlines()
        data += part


@pytest.fixture
def full_pipe() -> "tuple[int, io.TextIOWrapper]":
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 16_384)
    return reading, open(writing, "w", encoding="utf-8")


def test_a_pipe_that_nobody_reads_never_blocks(full_pipe: "tuple[int, io.TextIOWrapper]") -> None:
    reading, stream = full_pipe
    delivery = Delivery(Output(stream), to_json, Repeats(burst=10**6))
    for number in range(500):
        delivery.take(event(number, "x" * 100))
    lost = delivery.output.lost
    assert 0 < lost < 500
    shown = [orjson.loads(line) for line in read_all(reading)]
    assert [line["number"] for line in shown] == list(range(500 - lost))
    delivery.take(event(500))
    again, told = (orjson.loads(line) for line in read_all(reading))
    assert again["number"] == 500
    assert (told["lost"], told["level"], told["component"]) == (lost, "warning", "line")
    assert sum(delivery.lines.values()) == 500 - lost + 1
    stream.close()
    os.close(reading)


def test_a_line_that_went_out_in_part_is_ended(full_pipe: "tuple[int, io.TextIOWrapper]") -> None:
    reading, stream = full_pipe
    output = Output(stream)
    assert not output.write("a" * 100_000)
    assert len("".join(read_all(reading))) < 100_000
    assert output.write("whole")
    assert read_all(reading) == ["", "whole"], "no line is glued to the rest of another"
    stream.close()
    os.close(reading)


def test_a_reader_that_has_gone_raises_nothing() -> None:
    reading, writing = os.pipe()
    with open(writing, "w", encoding="utf-8") as stream:
        output = Output(stream)
        os.close(reading)
        assert not output.write("to nobody")
        assert output.lost == 1
    closed = io.StringIO()
    output = Output(closed)
    closed.close()
    assert not output.write("to nobody")


async def test_what_is_held_back_comes_by_itself() -> None:
    stream, threads = io.StringIO(), threading.active_count()
    delivery = Delivery(Output(stream), to_json, Repeats(burst=2, interval_s=0.05))
    for number in range(100):
        delivery.take(event(number))
    assert delivery.held_back == 98
    await until(lambda: stream.getvalue().count("\n") == 3)
    last = orjson.loads(stream.getvalue().splitlines()[-1])
    assert (last["number"], last["suppressed"]) == (99, 97)
    await until(lambda: threading.active_count() <= threads)


def test_an_end_shows_what_is_held_back_and_what_comes_then() -> None:
    stream = io.StringIO()
    delivery = Delivery(Output(stream), to_json, Repeats(burst=1, interval_s=1_000.0))
    for number in range(5):
        delivery.take(event(number))
    delivery.finish()
    for number in range(5, 8):
        delivery.take(event(number))
    shown = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert shown[-1]["number"] == 7
    assert sum(1 + line.get("suppressed", 0) for line in shown) == 8


async def test_threads_share_it() -> None:
    stream = io.StringIO()
    delivery = Delivery(Output(stream), to_json, Repeats(burst=5, interval_s=1_000.0))

    def work(name: str) -> None:
        for number in range(200):
            delivery.take(event(number, f"of {name} {number % 3}"))

    await asyncio.gather(*(asyncio.to_thread(work, name) for name in "abcd"))
    delivery.finish()
    shown = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert sum(1 + line.get("suppressed", 0) for line in shown) == 800
