"""The feed's plain counters, and the families under which they are exported."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tradeback.ops.metrics import Family, unlabelled

if TYPE_CHECKING:
    from tradeback.feed.server import Feed


class Counts:
    """Counters of clients; those of frames and bytes live where they are bumped."""

    __slots__ = (
        "aborted",
        "caught_up",
        "conflated",
        "connected",
        "lagged",
        "refused",
        "resumed",
        "resumes_refused",
        "silent",
    )

    def __init__(self) -> None:
        self.connected = self.refused = 0
        self.lagged = self.conflated = self.aborted = self.silent = 0
        self.caught_up = self.resumed = self.resumes_refused = 0


def families(feed: "Feed") -> Iterator[Family]:
    """The feed's numbers, as of now."""
    counts = feed.counts
    gauges = (
        ("clients", len(feed.clients), "WebSocket clients now"),
        ("lagging", len(feed.lagging), "clients that read too slowly now"),
        ("catching_up", len(feed.v2.replays), "clients that are served from the tape now"),
    )
    totals = (
        ("connected", counts.connected, "clients that ever connected"),
        ("refused", counts.refused, "clients refused because the feed was full"),
        ("trades", feed.trades, "trades published"),
        ("enigma_messages", feed.enigma.messages, "Enigma messages sent"),
        ("lagged", counts.lagged, "times a client began to lag"),
        ("conflated_entries", counts.conflated, "v1 entries to lagging clients, each for all they missed"),
        ("quotes_left_out", feed.v2.replays.quotes_left_out, "v2 quotes that slow readers did not get"),
        ("caught_up", counts.caught_up, "times a lagging v2 client was brought up to date from the tape"),
        ("resumed", counts.resumed, "resumes served"),
        ("resumes_refused", counts.resumes_refused, "resumes that the tape cannot serve"),
        ("replayed_records", feed.v2.replays.records, "records read from the tape for single clients"),
        ("aborted", counts.aborted, "clients given up because they read too slowly"),
        ("silent", counts.silent, "clients cut because they answered no ping"),
        ("requests", feed.requests.served, "control requests served"),
    )
    yield from _per_version(feed)
    yield from unlabelled("tradeback_feed_", "gauge", gauges)
    yield from unlabelled("tradeback_feed_", "counter", totals)
    refused = Family("tradeback_feed_errors", "counter", "control requests refused, by code")
    for code, count in feed.requests.refused.items():
        refused.add(count, code=code)
    yield refused
    latency = Family("tradeback_publish_latency_seconds", "histogram", "receive to last send, per trade")
    yield latency.add(feed.publish_latency)


def _per_version(feed: "Feed") -> Iterator[Family]:
    groups = Family("tradeback_feed_groups", "gauge", "distinct interests of live clients")
    encoded = Family("tradeback_feed_encoded_frames", "counter", "binary frames encoded for live clients")
    frames = Family("tradeback_feed_sent_frames", "counter", "binary frames sent live, all clients together")
    sent = Family("tradeback_feed_sent_bytes", "counter", "bytes of those frames")
    for lane in feed.lanes:
        version = f"v{lane.version}"
        groups.add(lane.fanout.groups, version=version)
        encoded.add(lane.fanout.encoded, version=version)
        frames.add(lane.fanout.frames, version=version)
        sent.add(lane.fanout.bytes, version=version)
    yield from (groups, encoded, frames, sent)
