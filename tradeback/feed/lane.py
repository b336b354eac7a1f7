"""What the server needs of a version of the feed: a lane. `lane_v1` and `lane_v2` are the two."""

from typing import Protocol

from tradeback.feed.client import Client
from tradeback.feed.fanout import FanOut
from tradeback.feed.interest import Interest
from tradeback.model.symbols import Symbol


class Lane(Protocol):
    """One version of the feed: who wants what, and how a client that fell behind is served."""

    version: int
    fanout: FanOut

    def attach(self) -> None:
        """Take the kernels, which a thread should have imported before."""

    def subscribe(
        self, client: Client, channels: tuple[str, ...], asked: Interest, symbols: list[Symbol]
    ) -> None:
        """Deliver symbols `asked` (ids, or EVERYTHING), which are `symbols`, in these channels of the tape.

        The answer to the request has been sent. First goes what is known of those that are new.
        """

    def unsubscribe(
        self, client: Client, channels: tuple[str, ...], gone: Interest, known: list[int]
    ) -> None:
        """Deliver these no more; `known` are the ids of all symbols."""

    def position(self, client: Client) -> tuple[int, int] | None:
        """(epoch, sequence) from which on a client gets records; None where a client is not told."""

    def behind(self, client: Client, oldest_hot: int) -> bool:
        """A client whose socket was full cannot be served any more from what memory holds."""

    def drained(self, client: Client) -> None:
        """A client's socket takes bytes again, and the memory holds what it missed: bring it up to date.

        `client.lagging` is False; it may be True again when this returns.
        """

    def leaving(self, client: Client) -> None:
        """Deliver nothing more to this client."""
