"""The role `latest` in Redis: what is kept under which key stands in docs/stores.md.

Prices and levels go by one script per flush, whatever their number: five times as fast as a pipeline of
SETs, and newer values win, whoever writes and however late. A batch and the position of the stream go by
one script too, so that a batch that is repeated stands in the stream once.
"""

import asyncio
import functools
import hashlib
import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from redis import exceptions as said

from tradeback.model.clock import Clock
from tradeback.model.config import RedisConfig
from tradeback.stores.latest_values import (
    ENDED_CHANNEL,
    PRICES_CHANNEL,
    levels_bytes,
    levels_of,
    message_of,
    price_bytes,
    price_of,
    prices_of,
    session_bytes,
    session_of,
    symbol_bytes,
    symbol_of,
)
from tradeback.stores.ports import Levels, Price, SharedSession, StreamBatch, StreamSymbol
from tradeback.stores.redis_client import RedisClient

KEYS_PER_CALL: Final = 250
"""Of one script: other clients of the server wait meanwhile, a millisecond."""
WATCHES_PER_CALL: Final = 200
WRITER: Final = "prices:writer"
NO_ORDER: Final = ("", 0, 0)
NO_RANK: Final = (-2, -1)
STREAM: Final = "ticks"
POSITIONS: Final = "ticks:positions"
STREAM_SYMBOLS: Final = "ticks:symbols"
WATCH_INDEX: Final = "marketwatches"
LISTEN_LOOK_S: Final = 0.5
LISTEN_RETRY_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0)

NEWEST: Final = """
local match, tonumber, call = string.match, tonumber, redis.call
local ttl, count, number = ARGV[1], #KEYS - 1, tonumber(ARGV[5])
local absent, in_order = 0, false
if number > 0 then
  local token, last = match(call('GET', KEYS[1]) or '', '^(.*):(%d+)$')
  in_order = token == ARGV[4] and tonumber(last) <= number and ARGV[6] == '1'
  if token ~= ARGV[4] or tonumber(last) < number then
    call('PSETEX', KEYS[1], ttl, ARGV[4] .. ':' .. ARGV[5])
  end
end
if in_order then
  absent = count - call('EXISTS', unpack(KEYS, 2))
  for i = 1, count do call('PSETEX', KEYS[i + 1], ttl, ARGV[i + 6]) end
else
  local function ids(value)
    local trade, quote = match(value, '^{"trade_id":(%-?%d+),"quote_us":(%d+),')
    if trade then return tonumber(trade), tonumber(quote) end
    return tonumber(match(value, '^{"trade_id":(%-?%d+),') or '-2'), 0
  end
  local function joined(trade_side, quote_side)
    local trade, middle = match(trade_side, '^{"trade_id":(%-?%d+),"quote_us":%d+,(.-),"bid":')
    local quote, rest = match(quote_side, '"quote_us":(%d+),.-,("bid":.*)$')
    return '{"trade_id":' .. trade .. ',"quote_us":' .. quote .. ',' .. middle .. ',' .. rest
  end
  local held = call('MGET', unpack(KEYS, 2))
  for i = 1, count do
    local key, new, old, prolongs = KEYS[i + 1], ARGV[i + 6], held[i], true
    if not old then
      absent = absent + 1
    elseif old ~= new then
      local new_trade, new_quote = ids(new)
      local old_trade, old_quote = ids(old)
      if old_trade > new_trade then
        prolongs = false
        if old_quote >= new_quote then new = nil else new = joined(old, new) end
      elseif old_quote > new_quote then
        prolongs = false
        new = joined(new, old)
      end
    end
    if prolongs then
      call('PSETEX', key, ttl, new)
    elseif new then
      call('SET', key, new, 'KEEPTTL')
    end
  end
end
if ARGV[3] ~= '' then call('PUBLISH', ARGV[2], ARGV[3]) end
return absent
"""
"""KEYS: last writer, then of values. ARGV: ms to live, channel, message or nothing, writer, number of the
flush (0: of something that has no writer), whether it is in order, the values.

Every value is compared with the one that is kept (latest_values.newer_of), unless the writer is the one that
wrote last, this flush comes behind that one, and the writer says that it holds nothing older: then all
there is was written by it, and is older. A flush that lay in the buffer of a hung server, a repetition or a
second engine never meets all three.
"""

APPEND: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then
  if ARGV[6] == '0' then return redis.error_reply('LOST stream') end
  redis.call('DEL', KEYS[2])
end
local held = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if held >= tonumber(ARGV[3]) then return 0 end
if held >= tonumber(ARGV[2]) then return redis.error_reply('OVERLAP with the stream') end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], '*',
  'epoch', ARGV[1], 'first', ARGV[2], 'last', ARGV[3], 'frames', ARGV[5])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
"""
"""KEYS: stream, positions; ARGV: epoch, first, last, entries to keep, frames, whether it may begin a stream.
0: it is in the stream."""


@functools.cache
def sha_of(script: str) -> str:
    """What Redis calls a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


async def run_script(script: str, words: Sequence[Any], client: Any) -> Any:
    """Run a script by its name; by its text where Redis does not know it yet, or no more.

    `words`: number of keys, keys, arguments. The library's own object for this takes 11 us a call.
    """
    try:
        return await client.execute_command("EVALSHA", sha_of(script), *words)
    except said.NoScriptError:
        return await client.execute_command("EVAL", script, *words)


class LatestRedis:
    """`ports.LatestStore` in one database. Loop thread only; connects when first asked."""

    def __init__(self, config: RedisConfig, clock: Clock, *, watch_ttl_s: float = 300.0) -> None:
        self.client = RedisClient(config)
        self._clock, self._config = clock, config
        self._price_ttl_ms, self._bars_ttl_ms = int(config.price_ttl_s * 1e3), int(config.bars_ttl_s * 1e3)
        self._watch_ttl_ms = int(watch_ttl_s * 1e3)
        self._token, self._number = secrets.token_hex(8), 0
        self._ranks: dict[str, tuple[int, int]] = {}
        """Newest trade and quote of each symbol that was put here."""
        self._closed = asyncio.Event()

    async def check(self) -> dict[str, Any]:
        """Raises StoreError with the remedy when Redis is away or cannot be used; what it says of itself."""
        return await self.client.check()

    async def probe(self) -> None:
        """Put something that is gone a second later. Raises StoreError with the remedy when that fails."""
        await self.client.run(lambda client: client.set("tradeback:probe", b"", px=1_000))

    async def put_prices(
        self, prices: Sequence[Price], levels: Sequence[Levels] = (), *, publish: bool = True
    ) -> int:
        """See `ports.LatestStore`."""
        self._number += 1
        order = self._token, self._number, int(self._is_in_order(prices))
        absent = 0
        on_way: deque[asyncio.Task[int]] = deque()
        try:
            for start in range(0, len(prices) - KEYS_PER_CALL, KEYS_PER_CALL):
                part = self._put_part(prices[start : start + KEYS_PER_CALL], order, publish)
                # The server works on one part while the next is made here.
                on_way.append(asyncio.ensure_future(part))
                await asyncio.sleep(0)
                if len(on_way) > 1:
                    absent += await on_way.popleft()
            rest = len(prices) - (len(prices) - 1) % KEYS_PER_CALL - 1
            if prices:
                absent += await self._put_part(prices[rest:], order, publish)
            while on_way:
                absent += await on_way.popleft()
        finally:
            for task in on_way:
                task.cancel()
            if on_way:
                await asyncio.gather(*on_way, return_exceptions=True)
        for start in range(0, len(levels), KEYS_PER_CALL):
            some = levels[start : start + KEYS_PER_CALL]
            keys = [f"enigma:{each.symbol}" for each in some]
            await self._put(keys, list(map(levels_bytes, some)), b"", NO_ORDER)
        return absent

    def _is_in_order(self, prices: Sequence[Price]) -> bool:
        """Whether none of them is older than what was put here before."""
        ranks, in_order = self._ranks, True
        for price in prices:
            trade_id, quote_us = ranks.get(price.symbol, NO_RANK)
            if price.trade_id < trade_id or price.quote_us < quote_us:
                in_order = False
            else:
                ranks[price.symbol] = price.trade_id, price.quote_us
        return in_order

    async def _put_part(self, prices: Sequence[Price], order: tuple[str, int, int], publish: bool) -> int:
        names = [price.symbol for price in prices]
        values = list(map(price_bytes, prices))
        message = message_of(zip(names, values, strict=True)) if publish else b""
        return await self._put([f"price:{name}" for name in names], values, message, order)

    async def _put(
        self, keys: list[str], values: list[bytes], message: bytes, order: tuple[str, int, int]
    ) -> int:
        words = [len(keys) + 1, WRITER, *keys, self._price_ttl_ms, PRICES_CHANNEL, message, *order, *values]
        return int(await self.client.run(partial(run_script, NEWEST, words)))

    async def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        """See `ports.LatestStore`."""
        if not symbols:
            return {}
        held = await self.client.run(lambda client: client.mget([f"price:{name}" for name in symbols]))
        pairs = zip(symbols, held, strict=True)
        found = ((name, price_of(name, data)) for name, data in pairs if data is not None)
        return {name: price for name, price in found if price is not None}

    async def levels(self, symbol: str) -> Levels | None:
        """See `ports.LatestStore`."""
        data = await self._get(f"enigma:{symbol}")
        return None if data is None else levels_of(symbol, data)

    def listen_prices(self) -> AsyncIterator[list[Price]]:
        """See `ports.LatestStore`."""
        return self._prices_from(self._listen(PRICES_CHANNEL))

    async def _prices_from(self, messages: AsyncIterator[bytes]) -> AsyncIterator[list[Price]]:
        async for message in messages:
            found = prices_of(message)
            if found:
                yield found

    async def put_bars(self, symbol: str, resolution: str, answer: bytes) -> None:
        """See `ports.LatestStore`."""
        key = f"cache:bars:{symbol}:{resolution}"
        await self.client.run(lambda client: client.set(key, answer, px=self._bars_ttl_ms))

    async def bars(self, symbol: str, resolution: str) -> bytes | None:
        """See `ports.LatestStore`."""
        return await self._get(f"cache:bars:{symbol}:{resolution}")

    async def put_session(self, token_hash: str, session: SharedSession) -> None:
        """See `ports.LatestStore`."""
        key, left_ms = f"session:{token_hash}", session.expires_at - self._clock.wall_ns() // 1_000_000
        if left_ms > 0:
            data = session_bytes(session)
            await self.client.run(lambda client: client.set(key, data, px=left_ms))
        else:
            await self.client.run(lambda client: client.delete(key))

    async def session(self, token_hash: str) -> SharedSession | None:
        """See `ports.LatestStore`."""
        data = await self._get(f"session:{token_hash}")
        return None if data is None else session_of(data)

    async def drop_session(self, token_hash: str) -> None:
        """See `ports.LatestStore`."""

        async def work(client: Any) -> None:
            async with client.pipeline(transaction=True) as pipe:
                pipe.delete(f"session:{token_hash}")
                pipe.publish(ENDED_CHANNEL, token_hash)
                await pipe.execute()

        await self.client.run(work)

    def listen_ended(self) -> AsyncIterator[str]:
        """See `ports.LatestStore`."""
        return self._texts_from(self._listen(ENDED_CHANNEL))

    async def _texts_from(self, messages: AsyncIterator[bytes]) -> AsyncIterator[str]:
        async for message in messages:
            yield message.decode("utf-8", "replace")

    async def put_watches(self, watches: Mapping[str, Sequence[str]]) -> None:
        """See `ports.LatestStore`."""
        named = list(watches.items())
        for start in range(0, len(named), WATCHES_PER_CALL):
            part = named[start : start + WATCHES_PER_CALL]
            until_ms = self._clock.wall_ns() // 1_000_000 + self._watch_ttl_ms
            await self.client.run(partial(self._put_watches, part, until_ms))

    async def _put_watches(self, part: list[tuple[str, Sequence[str]]], until_ms: int, client: Any) -> None:
        async with client.pipeline(transaction=True) as pipe:
            for watch_id, symbols in part:
                key = f"marketwatch:{watch_id}"
                pipe.delete(key)
                if symbols:
                    pipe.sadd(key, *symbols)
                    pipe.pexpire(key, self._watch_ttl_ms)
                    pipe.zadd(WATCH_INDEX, {watch_id: until_ms})
                else:
                    pipe.zrem(WATCH_INDEX, watch_id)
            await pipe.execute()

    async def watch(self, watch_id: str) -> list[str]:
        """See `ports.LatestStore`."""
        found = await self.client.run(lambda client: client.smembers(f"marketwatch:{watch_id}"))
        return sorted(member.decode("utf-8", "replace") for member in found)

    async def watched_by_all(self) -> frozenset[str]:
        """See `ports.LatestStore`."""
        return await self.client.run(self._union)

    async def _union(self, client: Any) -> frozenset[str]:
        await client.zremrangebyscore(WATCH_INDEX, "-inf", self._clock.wall_ns() // 1_000_000)
        ids = [name.decode("utf-8", "replace") for name in await client.zrange(WATCH_INDEX, 0, -1)]
        found: set[bytes] = set()
        for start in range(0, len(ids), KEYS_PER_CALL):
            part = ids[start : start + KEYS_PER_CALL]
            found |= set(await client.sunion([f"marketwatch:{watch_id}" for watch_id in part]))
        return frozenset(member.decode("utf-8", "replace") for member in found)

    async def append(self, batch: StreamBatch, *, begins: bool = True) -> bool:
        """See `ports.LatestStore`. Raises Refused when a part of the batch is in the stream already."""
        entries = self._config.stream_entries
        values = [batch.epoch, batch.first, batch.last, entries, batch.frames, int(begins)]
        return bool(await self.client.run(partial(run_script, APPEND, [2, STREAM, POSITIONS, *values])))

    async def stream_positions(self) -> dict[int, int]:
        """See `ports.LatestStore`."""
        if not await self.client.run(lambda client: client.exists(STREAM)):
            return {}
        found = await self.client.run(lambda client: client.hgetall(POSITIONS))
        return {int(epoch): int(last) for epoch, last in found.items()}

    async def read_stream(self, after: str = "0", count: int = 100) -> list[tuple[str, StreamBatch]]:
        """See `ports.LatestStore`."""
        first = f"({after}" if after != "0" else "-"
        found = await self.client.run(lambda client: client.xrange(STREAM, first, "+", count))
        return [(entry_id.decode(), _batch(fields)) for entry_id, fields in found]

    async def put_symbols(self, symbols: Sequence[StreamSymbol]) -> None:
        """See `ports.LatestStore`."""
        if symbols:
            held = {symbol.id: symbol_bytes(symbol) for symbol in symbols}
            await self.client.run(lambda client: client.hset(STREAM_SYMBOLS, mapping=held))

    async def stream_symbols(self) -> list[StreamSymbol]:
        """See `ports.LatestStore`."""
        found = await self.client.run(lambda client: client.hgetall(STREAM_SYMBOLS))
        return sorted(symbol_of(int(symbol_id), data) for symbol_id, data in found.items())

    async def close(self) -> None:
        """See `ports.LatestStore`."""
        self._closed.set()
        await self.client.close()

    async def _get(self, key: str) -> bytes | None:
        found: bytes | None = await self.client.run(lambda client: client.get(key))
        return found

    async def _listen(self, channel: str) -> AsyncIterator[bytes]:
        """Messages of a channel until `close`, over any number of lost connections."""
        failures = 0
        while not self._closed.is_set():
            client = self.client.listener()
            try:
                async with client.pubsub(ignore_subscribe_messages=True) as listening:
                    await listening.subscribe(channel)
                    while not self._closed.is_set():
                        message = await listening.get_message(timeout=LISTEN_LOOK_S)
                        failures = 0
                        if message is not None:
                            yield message["data"]
            except (said.RedisError, OSError):
                delay_s = LISTEN_RETRY_S[min(failures, len(LISTEN_RETRY_S) - 1)]
                failures += 1
                try:
                    await asyncio.wait_for(self._closed.wait(), delay_s)
                except TimeoutError:
                    continue
            finally:
                await client.aclose()


def _batch(fields: Mapping[bytes, bytes]) -> StreamBatch:
    return StreamBatch(int(fields[b"epoch"]), int(fields[b"first"]), int(fields[b"last"]), fields[b"frames"])
