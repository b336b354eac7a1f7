"""A client of the feed.

async with connect("http://127.0.0.1:8080", ["BTCUSDT"]) as feed:
    async for batch in feed.batches():
        for symbol_id, price, volume in batch.entries:
            print(feed.symbol(symbol_id).symbol, price, volume)
"""

from tradeback.client.feed import Batch, Control, Feed, FeedSymbol, connect

__all__ = ["Batch", "Control", "Feed", "FeedSymbol", "connect"]
