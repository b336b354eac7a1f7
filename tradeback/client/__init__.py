"""A client of the feed; docs/clients.md.

async with connect("http://127.0.0.1:8080", ["BTCUSDT"], channels=("trades", "quotes")) as feed:
    async for batch in feed:
        print(batch.trades["id"], batch.prices(), batch.latency.inside_engine_us)
"""

from tradeback.client.batch import Batch, BatchV1, Control, Event, FeedSymbol, Gap, Latency, Lost, Position
from tradeback.client.feed import Feed, FeedError, FeedRefused, connect

__all__ = [
    "Batch",
    "BatchV1",
    "Control",
    "Event",
    "Feed",
    "FeedError",
    "FeedRefused",
    "FeedSymbol",
    "Gap",
    "Latency",
    "Lost",
    "Position",
    "connect",
]
