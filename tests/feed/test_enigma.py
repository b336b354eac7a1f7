"""feed/enigma: current value at once, then conflated changes, encoded once for all."""

import asyncio
from typing import Any

from tests.feed.harness import ask, entries, subscribe, text, world
from tradeback.model.config import FeatureConfig, FeedConfig
from tradeback.model.limits import CLIENT_ERRORS_MAX

FAST = FeedConfig(enigma_interval_s=0.01)
CHANNELS = {"channels": ["enigma"]}


def value(level: float) -> dict[str, Any]:
    return {"symbol": "BTCUSDT", "level": level}


async def test_the_current_value_then_every_change() -> None:
    values = {1: value(10.0)}
    async with world(FAST, enigma_of=values.get) as running, running.connect() as ws:
        assert (await subscribe(ws, "BTCUSDT", "ETHUSDT", **CHANNELS))["type"] == "subscribed"
        assert await text(ws) == {"type": "enigma", "data": value(10.0)}
        values[1] = value(20.0)
        running.trade((1, 1.0, 1.0))
        assert await text(ws) == {"type": "enigma", "data": value(20.0)}
        assert running.feed.v1.fanout.groups == 0, "no trades without the channel"


async def test_changes_within_the_interval_are_one_message() -> None:
    values = {1: value(0.0)}
    async with world(FAST, enigma_of=values.get) as running:
        async with running.connect() as ws, running.connect() as everything:
            await subscribe(ws, "BTCUSDT", **CHANNELS)
            await ask(everything, {"type": "subscribe", "symbols": "*", **CHANNELS})
            await text(ws)
            await text(everything)
            for turn in range(1, 501):
                values[1] = value(float(turn))
                running.trade((1, 1.0, 1.0))
            for client in (ws, everything):
                assert (await text(client))["data"]["level"] == 500.0
            assert running.feed.enigma.messages == 4
        while running.feed.clients:
            await asyncio.sleep(0)
        assert not running.feed.enigma.wanted


async def test_both_channels_and_leaving_one() -> None:
    values = {1: value(1.0)}
    async with world(FAST, enigma_of=values.get) as running, running.connect() as ws:
        await subscribe(ws, "BTCUSDT", channels=["trades", "enigma"])
        await text(ws)
        running.trade((1, 5.0, 1.0))
        assert await entries(ws, 1) == [(1, 5.0, 1.0)]
        assert (await text(ws))["type"] == "enigma"
        request = {"type": "unsubscribe", "symbols": ["BTCUSDT"], "channels": ["trades"]}
        assert (await ask(ws, request))["type"] == "unsubscribed"
        running.trade((1, 6.0, 1.0))
        assert (await text(ws))["type"] == "enigma"
        await ask(ws, {"type": "unsubscribe", "symbols": ["BTCUSDT"]})
        assert not running.feed.enigma.wanted


async def test_switched_off_it_is_refused_and_the_other_channels_work() -> None:
    features = FeatureConfig(enigma_enabled=False)
    async with world(FAST, features=features, enigma_of={1: value(1.0)}.get) as running:
        async with running.connect() as ws:
            for _ in range(CLIENT_ERRORS_MAX + 1):
                answer = await subscribe(ws, "BTCUSDT", **CHANNELS)
                assert (answer["type"], answer["code"]) == ("error", "disabled")
                assert "feature.enigma_enabled" in answer["message"]
        async with running.connect() as ws:
            answer = await subscribe(ws, "BTCUSDT", "NOPE", channels=["trades", "enigma"])
            assert answer["type"] == "subscribed"
            assert (await text(ws))["code"] == "disabled"
            assert (await text(ws))["code"] == "unknown_symbol"
            running.trade((1, 5.0, 1.0))
            assert await entries(ws, 1) == [(1, 5.0, 1.0)]
            assert not running.feed.enigma.wanted
            await ask(ws, {"type": "unsubscribe", "symbols": ["BTCUSDT"]})
            assert (await ask(ws, {"type": "ping"}))["type"] == "pong"
