"""A tape in memory with the series derived from it, drained into a real Redis, and what stands there."""

import logging
import random
from pathlib import Path
from typing import Any

import numpy as np

from tests.derive.world import symbol
from tests.servers.kinds import RedisServer
from tests.sinks.drain_world import MemoryTape, SystemTime, quotes, trades, until
from tradeback.derive.state import Derived
from tradeback.model.config import Config, RedisConfig
from tradeback.model.record import AGG, QUOTE, TRADE, Rows
from tradeback.sinks.drain import Drain
from tradeback.sinks.redis import redis_drains
from tradeback.stores.latest_redis import LatestRedis
from tradeback.stores.ports import StreamBatch
from tradeback.wire.v2 import Decoder
from tradeback.wire.v2_batch import unpack

LOG = logging.getLogger("tests.redis")
SYMBOLS = [symbol(symbol_id) for symbol_id in (1, 2, 3)]
NAMES = [each.symbol for each in SYMBOLS]


class World:
    """One engine's tape and derived series, and its drains into one Redis."""

    def __init__(self, server: RedisServer, folder: Path, **redis: Any) -> None:
        self.server, self.folder = server, folder
        given = {"addr": server.address, "timeout_s": 0.4, **redis}
        self.config = Config(redis=RedisConfig(**given), data_dir=str(folder))
        self.tape = MemoryTape()
        self.derived = Derived(3)
        for each in SYMBOLS:
            self.derived.add_symbol(each)
        self.prices, self.ticks = self.drains()
        self._chance = random.Random(7)
        self._next_id = dict.fromkeys((1, 2, 3), 1)
        self._us = 1_700_000_000_000_000

    def drains(self) -> list[Drain]:
        """New ones, as after a restart of the engine."""
        return redis_drains(self.config, self.tape, self.derived, lambda: SYMBOLS, SystemTime(), LOG)

    def append(self, rows: Rows) -> None:
        rows = np.ascontiguousarray(rows)
        self.tape.append(rows)
        self.derived.on_rows(int(rows.ctypes.data), len(rows))

    def trade(self, count: int) -> None:
        """Trades, quotes and aggregates of three symbols on the tape."""
        made: list[Rows] = []
        while sum(map(len, made)) < count:
            kind = self._chance.choice((TRADE, TRADE, QUOTE, AGG))
            symbol_id = self._chance.randint(1, 3)
            self._us += self._chance.choice((0, 1_000, 250_000))
            some = quotes if kind == QUOTE else trades
            rows = some(self._chance.randint(1, 9), self._next_id[symbol_id], symbol_id)
            rows["kind"], rows["exchange_us"] = kind, self._us
            rows["price"] = [round(self._chance.uniform(1, 2), 8) for _ in rows]
            rows["quantity"] = [round(self._chance.uniform(1, 2), 4) for _ in rows]
            if kind == QUOTE:
                rows["ask"], rows["ask_quantity"] = rows["price"] + 0.5, 3.0
            elif kind == TRADE:
                self._next_id[symbol_id] += len(rows)
            made.append(rows)
        self.append(np.concatenate(made))

    @property
    def end(self) -> int:
        """Sequence of the newest record."""
        return self.tape.next_sequence - 1

    async def reached(self) -> None:
        """Both drains have brought everything into Redis."""
        end = self.end
        await until(
            lambda: self.ticks.position.sequence >= end and self.prices.position.sequence >= end, 60.0
        )

    def store(self) -> LatestRedis:
        """A client of one's own."""
        return LatestRedis(self.config.redis, SystemTime())

    async def batches(self) -> list[StreamBatch]:
        """The whole stream."""
        store, found = self.store(), []
        after = "0"
        while part := await store.read_stream(after, 1_000):
            found += [batch for _, batch in part]
            after = part[-1][0]
        await store.close()
        return found

    async def assert_prices(self) -> None:
        """What is kept is the newest of the tape, computed anew."""
        store = self.store()
        found = await store.prices(NAMES)
        for each in SYMBOLS:
            rows = self.tape.rows[self.tape.rows["symbol_id"] == each.id]
            last = rows[rows["kind"] == TRADE][-1]
            quote = rows[rows["kind"] == QUOTE][-1]
            price = found[each.symbol]
            assert (price.price, price.volume, price.trade_id) == (
                last["price"], last["quantity"], last["id"],
            )  # fmt: skip
            assert (price.bid, price.ask) == (quote["price"], quote["ask"])
            assert price.timestamp == last["exchange_us"] // 1_000
            levels, enigma = await store.levels(each.symbol), self.derived.enigma(each.id)
            assert levels is not None
            assert enigma is not None
            assert levels.trade_id == enigma.trade_id
            assert (levels.level, levels.ath, levels.atl) == (enigma.level, enigma.ath, enigma.atl)
            assert levels.fib_levels == enigma.fib_levels()
        await store.close()

    async def assert_stream(self, first: int = 1) -> list[StreamBatch]:
        """Records from `first` to the end, each in one batch, in order, and with what the tape says."""
        batches = await self.batches()
        assert batches[0].first <= first
        assert [batch.first for batch in batches[1:]] == [batch.last + 1 for batch in batches[:-1]]
        assert batches[-1].last == self.end
        decoder = Decoder()
        store = self.store()
        for each in await store.stream_symbols():
            decoder.learn(each.id, each.price_precision, each.quantity_precision)
        await store.close()
        for batch in batches:
            rows = self.tape.rows[batch.first - 1 : batch.last]
            frames = [decoder.decode(data) for data in unpack(batch.frames)]
            assert {frame.epoch for frame in frames} <= {batch.epoch}
            for kind, mine in ((TRADE, "trades"), (QUOTE, "quotes")):
                wanted = rows[rows["kind"] == kind]
                parts = [getattr(frame, mine) for frame in frames if len(getattr(frame, mine))]
                held: Any = np.concatenate(parts) if parts else []
                assert len(held) == len(wanted)
                if not len(wanted):
                    continue
                assert held["symbol_id"].tolist() == wanted["symbol_id"].tolist()
                price = "price" if kind == TRADE else "bid"
                assert held[price].tolist() == wanted["price"].tolist()
                if kind == TRADE:
                    assert held["id"].tolist() == wanted["id"].tolist()
        return batches
