"""feed/lane_v2 on a real tape and a real port: snapshots, channels, live records, heartbeats."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.feed.v2_peer import ALL, Market, entries_of, expected, peer, tape_rows, taped
from tradeback.model.config import FeedConfig
from tradeback.model.record import GAP, QUOTE, TRADE
from tradeback.model.symbols import Symbol
from tradeback.wire import v2_layout as at
from tradeback.wire.v2_frame import WireError

FAST_BEATS = FeedConfig(lag_max_s=0.04)
"""A sweep every 10 ms."""


async def test_live_frames_are_the_tapes_rows(tmp_path: Path) -> None:
    market = Market(3)
    async with taped(tmp_path) as running, peer(running.ws) as everything, peer(running.ws) as some:
        answer = await everything.subscribe("*")
        assert (answer["epoch"], answer["sequence"]) == (running.tape.epoch, 1)
        assert answer["symbols"]["ETHUSDT"] == {"id": 2, "price_precision": 2, "quantity_precision": 4}
        await some.subscribe("ETHUSDT", "SOLUSDT", channels=["trades"])
        await some.subscribe("BTCUSDT", channels=["quotes"])
        for count in (1, 7, 400, 3_000, 2):
            running.publish(market.rows(count))
        end = running.tape.next_sequence
        await everything.reach(end)
        rows = tape_rows(running)
        assert everything.entries() == expected(rows)
        assert [frame.epoch for frame in everything.frames] == [running.tape.epoch] * len(everything.frames)
        wanted = [
            entry
            for entry in expected(rows, ["trades", "quotes"])
            if (entry[0] == "trade") == (entry[1] != 1)
        ]
        await some.until(lambda: len(some.entries()) >= len(wanted))
        assert some.entries() == wanted
        positions = [frame.sequence for frame in everything.frames]
        assert positions == sorted(positions)
        assert all(frame.flags == 0 for frame in everything.frames)


async def test_a_frames_position_covers_exactly_what_came(tmp_path: Path) -> None:
    """Whatever frame is the last one that a client has used: before its sequence all, behind it nothing."""
    market = Market(4)
    async with taped(tmp_path) as running, peer(running.ws) as client:
        await client.subscribe("BTCUSDT", "SOLUSDT")
        running.publish(market.rows(5_000))
        await client.reach(running.tape.next_sequence)
        assert len(client.frames) >= 3, "one batch, many frames"
        got = 0
        for frame in client.frames:
            got += frame.count
            before = tape_rows(running, 1, frame.sequence)
            assert got == len(expected(before, ids=(1, 3)))


async def test_the_snapshot_is_the_last_trade_and_the_newest_quote(tmp_path: Path) -> None:
    market = Market(5)
    async with taped(tmp_path) as running, peer(running.ws) as client, peer(running.ws) as more:
        running.publish(market.rows(500))
        rows = tape_rows(running)
        answer = await client.subscribe("BTCUSDT", "ETHUSDT")
        assert answer["sequence"] == 501
        await client.until(lambda: bool(client.frames))
        (frame,) = client.frames
        assert (frame.flags, frame.sequence) == (at.FRAME_SNAPSHOT, 501)
        trades, quotes = rows[rows["kind"] == TRADE], rows[rows["kind"] == QUOTE]
        for symbol_id in (1, 2):
            last = trades[trades["symbol_id"] == symbol_id]
            last = last[np.argmax(last["id"])]
            (found,) = frame.trades[frame.trades["symbol_id"] == symbol_id]
            assert [found[name] for name in ("id", "price", "quantity", "exchange_us")] == [
                last[name] for name in ("id", "price", "quantity", "exchange_us")
            ]
            newest = quotes[quotes["symbol_id"] == symbol_id][-1]
            (found,) = frame.quotes[frame.quotes["symbol_id"] == symbol_id]
            assert (found["bid"], found["ask"]) == (newest["price"], newest["ask"])
            assert found["flags"] & at.SNAPSHOT
        await client.subscribe("BTCUSDT")
        await client.subscribe("SOLUSDT", channels=["quotes"])
        await client.until(lambda: len(client.frames) == 2)
        assert [entry[:2] for entry in entries_of(client.frames[1])] == [("quote", 3)], "only what is new"
        await more.subscribe("*", channels=["gaps"])
        running.publish(market.rows(200))
        await more.reach(701)
        assert more.entries(snapshots=True) == expected(tape_rows(running, 501), ["gaps"])


async def test_unsubscribing_by_channel_and_from_everything(tmp_path: Path) -> None:
    market = Market(6)
    async with taped(tmp_path) as running, peer(running.ws) as client:
        await client.subscribe("*")
        await client.send(type="unsubscribe", symbols=["BTCUSDT"], channels=["quotes", "gaps"])
        await client.answer("unsubscribed")
        running.publish(market.rows(300))
        await client.reach(301)
        wanted = [entry for entry in expected(tape_rows(running)) if entry[0] == "trade" or entry[1] != 1]
        assert client.entries() == wanted
        await client.send(type="unsubscribe", symbols="*", channels=["trades", "quotes"])
        await client.answer("unsubscribed")
        running.publish(market.rows(300))
        wanted += [entry for entry in expected(tape_rows(running, 301), ["gaps"]) if entry[1] != 1]
        await client.until(lambda: len(client.entries()) == len(wanted))
        assert client.entries() == wanted
        await client.send(type="unsubscribe", symbols="*")
        await client.answer("unsubscribed")
        running.publish(market.rows(50))
        await client.send(type="ping")
        await client.answer("pong")
        assert client.entries() == wanted
        assert running.feed.v2.fanout.groups == 0


async def test_a_symbol_that_comes_later_belongs_to_everything(tmp_path: Path) -> None:
    market = Market(7, symbols=(1, 9))
    async with taped(tmp_path) as running, peer(running.ws) as client:
        await client.subscribe("*")
        running.symbols.put(Symbol(9, "NEWUSDT", tick_size="0.01000000", step_size="0.00100000"))
        running.publish(market.rows(40))
        with pytest.raises(WireError, match="subscribe again"):
            await client.reach(41)
        answer = await client.subscribe("*")
        assert answer["symbols"]["NEWUSDT"]["id"] == 9
        running.publish(market.rows(40))
        await client.reach(81)
        assert client.entries() == expected(tape_rows(running, 41))
        assert not np.any(client.frames[-1].trades["flags"] & at.OFF_GRID), "its grid is known now"


async def test_grids_that_changed_before_the_kernels_came_are_told(tmp_path: Path) -> None:
    """The registry's description of a symbol is replaced by the exchange's while clients wait."""
    market = Market(8)
    async with taped(tmp_path, attach=False) as running, peer(running.ws) as client:
        answer = await client.subscribe("BTCUSDT")
        assert answer["symbols"]["BTCUSDT"]["quantity_precision"] == 5
        running.symbols.put(Symbol(1, "BTCUSDT", tick_size="0.00010000", step_size="0.00000100"))
        running.feed.attach_kernels()
        told = await client.answer("subscribed")
        assert told["symbols"] == {"BTCUSDT": {"id": 1, "price_precision": 4, "quantity_precision": 6}}
        assert "sequence" not in told, "no position: nothing has been asked"
        running.publish(market.rows(100))
        await client.until(lambda: len(client.entries()) == len(expected(tape_rows(running), ids=[1])))
        assert client.entries() == expected(tape_rows(running), ids=[1])
        assert set(client.frames[-1].trades["price_digits"]) <= {4}


async def test_heartbeats_fill_silence_and_carry_the_position(tmp_path: Path) -> None:
    market = Market(9, symbols=(1,))
    async with taped(tmp_path, FAST_BEATS) as running, peer(running.ws) as quiet, peer(running.ws) as busy:
        await quiet.subscribe("SOLUSDT")
        await busy.subscribe("BTCUSDT")
        while running.tape.next_sequence < 41:
            running.publish(market.rows(2))
            await asyncio.sleep(0.003)
        await quiet.reach(41)
        assert quiet.order.count("frame") == 0
        beat = quiet.frames[-1]
        assert (beat.epoch, beat.sequence, beat.count) == (running.tape.epoch, 41, 0)
        running.publish(market.rows(1))
        await quiet.reach(42)
        await busy.reach(42)
        assert busy.order.count("beat") <= quiet.order.count("beat")


async def test_enigma_is_binary_and_never_ahead_of_the_records(tmp_path: Path) -> None:
    market = Market(10)
    config = FeedConfig(enigma_interval_s=0.005)
    async with taped(tmp_path, config) as running, peer(running.ws) as client:
        running.publish(market.rows(100))
        await client.subscribe("*", channels=[*ALL, "enigma"])
        running.publish(market.rows(100))
        derived: Any = running.context.derived

        def latest() -> dict[int, Any]:
            return {int(row["symbol_id"]): row for frame in client.frames for row in frame.enigma}

        wanted = {symbol_id: derived.enigma(symbol_id) for symbol_id in (1, 2, 3)}
        await client.until(
            lambda: (
                {number: row["trade_id"] for number, row in latest().items()}
                == {number: enigma.trade_id for number, enigma in wanted.items()}
            )
        )
        reached = 101
        for frame in client.frames:
            if frame.flags & at.FRAME_SNAPSHOT:
                continue
            if len(frame.enigma):
                assert frame.sequence == reached, "the position of the records before it"
            reached = frame.sequence
        for symbol_id, row in latest().items():
            enigma = wanted[symbol_id]
            assert (row["level"], row["ath"], row["price"]) == (enigma.level, enigma.ath, enigma.price)


async def test_gaps_arrive_with_their_states(tmp_path: Path) -> None:
    market = Market(11)
    rows = market.rows(60)
    async with taped(tmp_path) as running, peer(running.ws) as client:
        await client.subscribe("*", channels=["gaps"])
        rows["kind"], rows["quantity"] = GAP, np.arange(60) % 3 + 1
        running.publish(rows)
        await client.reach(61)
        assert client.entries() == expected(rows, ["gaps"])
        assert {entry[4] for entry in client.entries()} == {1, 2, 3}
