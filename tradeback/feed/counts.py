"""The feed's plain counters, and the families under which they are exported."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tradeback.ops.metrics import Family, unlabelled

if TYPE_CHECKING:
    from tradeback.feed.server import Feed


class Counts:
    """Counters of clients; those of frames and bytes live where they are bumped."""

    __slots__ = ("aborted", "conflated", "connected", "lagged", "refused", "silent")

    def __init__(self) -> None:
        self.connected = self.refused = 0
        self.lagged = self.conflated = self.aborted = self.silent = 0


def families(feed: "Feed") -> Iterator[Family]:
    """The feed's numbers, as of now."""
    counts, fanout = feed.counts, feed.fanout
    gauges = (
        ("clients", len(feed.clients), "WebSocket clients now"),
        ("lagging", len(feed.lagging), "clients that read too slowly now"),
        ("groups", fanout.groups, "distinct interests of live clients"),
    )
    totals = (
        ("connected", counts.connected, "clients that ever connected"),
        ("refused", counts.refused, "clients refused because the feed was full"),
        ("trades", feed.trades, "trades published"),
        ("encoded_frames", fanout.encoded, "binary frames encoded"),
        ("sent_frames", fanout.frames, "binary frames sent, all clients together"),
        ("sent_bytes", fanout.bytes, "bytes of those frames"),
        ("enigma_messages", feed.enigma.messages, "Enigma messages sent"),
        ("lagged", counts.lagged, "times a client began to lag"),
        ("conflated_entries", counts.conflated, "entries sent to lagging clients, each for all they missed"),
        ("aborted", counts.aborted, "clients given up because they read too slowly"),
        ("silent", counts.silent, "clients cut because they answered no ping"),
        ("requests", feed.requests.served, "control requests served"),
    )
    yield from unlabelled("tradeback_feed_", "gauge", gauges)
    yield from unlabelled("tradeback_feed_", "counter", totals)
    refused = Family("tradeback_feed_errors", "counter", "control requests refused, by code")
    for code, count in feed.requests.refused.items():
        refused.add(count, code=code)
    yield refused
    latency = Family("tradeback_publish_latency_seconds", "histogram", "receive to last send, per trade")
    yield latency.add(feed.publish_latency)
