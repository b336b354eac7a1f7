"""feed/replay on an edge: a client comes from another one that was further."""

import asyncio
from pathlib import Path

import pytest

from tests.feed.test_replay import ask_since
from tests.feed.v2_peer import Market, expected, peer, tape_rows, taped
from tradeback.feed import replay
from tradeback.wire import v2_layout as at


@pytest.mark.parametrize("ahead", [1, 7, 500])
async def test_it_goes_on_where_it_was_once_the_tape_is_there(tmp_path: Path, ahead: int) -> None:
    market = Market(1)
    async with taped(tmp_path) as running, peer(running.ws) as client:
        running.feed.v2.ahead_max = 1_000
        running.publish(market.rows(999))
        await ask_since(client, running, 1_000 + ahead)
        assert [text["type"] for text in client.texts] == ["subscribed", "resumed"]
        assert client.texts[1]["until"] == 1_000 + ahead
        for count in (ahead // 2, ahead - ahead // 2, 300):
            running.publish(market.rows(count))
            await asyncio.sleep(0.02)
        await client.reach(1_300 + ahead)
        assert client.entries(snapshots=True) == expected(tape_rows(running, 1_000 + ahead))
        running.publish(market.rows(50))
        await client.reach(1_350 + ahead)
        assert client.entries(snapshots=True) == expected(tape_rows(running, 1_000 + ahead))
        assert client.frames[-1].flags == 0, "live again"


async def test_many_wait_at_once(tmp_path: Path) -> None:
    market = Market(2)
    async with taped(tmp_path) as running:
        running.feed.v2.ahead_max = 1_000
        running.publish(market.rows(99))
        async with asyncio.TaskGroup() as group:

            async def one(since: int) -> None:
                async with peer(running.ws) as client:
                    await ask_since(client, running, since)
                    ready.append(client)
                    await client.reach(400)
                    assert client.entries(snapshots=True) == expected(tape_rows(running, since, 400))

            ready: list[object] = []
            for number in range(20):
                group.create_task(one(101 + 10 * number))
            while len(ready) < 20:
                await asyncio.sleep(0.01)
            running.publish(market.rows(300))


async def test_too_far_ahead_is_refused(tmp_path: Path) -> None:
    async with taped(tmp_path) as running, peer(running.ws) as client:
        running.feed.v2.ahead_max = 1_000
        running.publish(Market(3).rows(99))
        await ask_since(client, running, 1_101)
        assert "is ahead of this tape" in client.texts[-1]["reason"]
        await client.reach(100)
        assert client.frames[0].flags & at.FRAME_SNAPSHOT


async def test_who_waits_in_vain_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "AHEAD_S", 0.05)
    async with taped(tmp_path) as running, peer(running.ws) as client:
        running.feed.v2.ahead_max = 1_000
        running.publish(Market(4).rows(99))
        await ask_since(client, running, 105)
        async with asyncio.timeout(30):
            await client.ws.wait_closed()
        assert client.ws.close_code == 1013
        assert "has not come here" in str(client.ws.close_reason)
