"""api.reads: a few at a time, the others wait, and a crowd is told to come again."""

import asyncio
import threading

import pytest

from tests.feed.harness import get, world
from tradeback.api import reads
from tradeback.api.errors import ApiError
from tradeback.api.reads import Reads
from tradeback.model.errors import TapeError


async def test_two_read_and_the_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "WAITING_MAX", 5)
    made, gate, running, most = Reads(), threading.Event(), 0, 0
    lock = threading.Lock()

    def work() -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(30)
        with lock:
            running -= 1
        return most

    asked = [asyncio.create_task(made.run(work)) for _ in range(5)]
    while running < reads.AT_ONCE:
        await asyncio.sleep(0.001)
    with pytest.raises(ApiError) as refused:
        await made.run(work)
    assert (refused.value.status, refused.value.code) == (503, "busy")
    assert refused.value.headers["Retry-After"]
    asked.pop().cancel()
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*asked) == [reads.AT_ONCE] * 4
    assert made.open == 0


async def test_what_cannot_be_read_gives_its_place_back() -> None:
    made = Reads()

    def work() -> None:
        raise TapeError("record 5 in /folder/tape is damaged")

    for _ in range(2 * reads.AT_ONCE):
        with pytest.raises(TapeError):
            await made.run(work)
    assert await made.run(lambda: 7) == 7


async def test_a_damaged_tape_is_503_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    class Torn:
        def symbol_rows(self, *values: object, **more: object) -> None:
            raise TapeError("record 5 in /folder/tape is damaged")

    async with world(context_options={"reader": Torn()}) as running:
        for path in ("ticks", "price?at=1700000000000"):
            status, told = await get(running, f"/api/v1/symbols/BTCUSDT/{path}")
            assert (status, told["error"]["code"]) == (503, "not_ready"), path
            assert "/folder" not in str(told)
    assert "record 5" in caplog.text
