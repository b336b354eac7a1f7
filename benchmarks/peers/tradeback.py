"""tradeback's own client, subscribed to an engine on the simulator; batches instead of callbacks."""

import time
from typing import Any

import uvloop

from benchmarks.peers.child import Record, Task, main
from tradeback.client import Batch, Feed, Gap, connect
from tradeback.client.session import ACCELERATE_AFTER
from tradeback.model.record import STAND_IN
from tradeback.wire.v2_layout import SNAPSHOT


def _keep(trades: Any, feed: Feed, record: Record) -> None:
    """Every trade of a batch with the moment at which the program got the batch."""
    now_ns = time.time_ns()
    columns = (trades[name].tolist() for name in ("symbol_id", "id", "flags", "first_id"))
    for symbol_id, trade_id, flags, first_id in zip(*columns, strict=True):
        name = feed.symbol(symbol_id).symbol
        if flags & SNAPSHOT:
            continue
        if flags & STAND_IN:
            record.stood_in.append((name, first_id, trade_id))
        else:
            record.got.append((name, trade_id, now_ns))


def _use(batch: Batch, record: Record) -> None:
    """What a program does with a batch: prices and quantities as floats, as the other peers' callbacks."""
    batch.prices(), batch.quantities()
    record.trades += len(batch.trades)
    quotes = batch.quotes
    if len(quotes):
        quotes["bid"], quotes["bid_quantity"], quotes["ask"], quotes["ask_quantity"]
        record.quotes += len(quotes)
        record.conflated += int(quotes["skipped"].sum())


async def _follow(task: Task, record: Record) -> None:
    def on_gap(gap: Gap) -> None:
        record.gaps.append([gap.symbol, gap.state, gap.first_id, gap.last_id, gap.missing])
        record.tell("gap record", f"{gap.symbol} {gap.state} {gap.first_id}-{gap.last_id}")

    channels, batches = ("trades", "quotes", "gaps"), 0
    record.steady = not task.count_only  # where speed is measured: with the decoder that it keeps
    async with connect(task.url, task.names, channels=channels, on_gap=on_gap) as feed:
        async for batch in feed:
            if batch.snapshot:
                continue
            if not task.count_only:
                _keep(batch.trades, feed, record)
            _use(batch, record)
            batches += 1
            record.steady = record.steady or batches > ACCELERATE_AFTER


def run(task: Task, record: Record) -> None:
    """Read for ever."""
    uvloop.run(_follow(task, record))


if __name__ == "__main__":
    main(run, "tradeback", "picows", "uvloop")
