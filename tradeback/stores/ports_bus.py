"""The bus: messages between nodes, the one of the four roles of `ports` that keeps nothing."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from tradeback.model.errors import StoreError
from tradeback.ops.health import ComponentHealth


class Message(NamedTuple):
    """What a subscriber of the bus gets."""

    subject: str
    payload: bytes


Handler = Callable[[Message], Awaitable[None]]
"""Takes one message; the next of its subscription comes when it has returned."""
Answerer = Callable[[Message], Awaitable[bytes]]
"""Makes the answer to one request. Errors that the asker shall see are answers too."""


class NoAnswer(StoreError):
    """Nobody listens to the subject of a request."""


class Subscription(Protocol):
    """One interest of one reader."""

    @property
    def dropped(self) -> int:
        """Messages that were let go because this reader was too slow."""

    async def end(self) -> None:
        """No more messages; those that wait are let go. May be called twice."""


class Bus(Protocol):
    """Messages between nodes. Subjects are dotted words; delivery is at most once, in order per publisher.

    A reader that is slow loses messages of its own and delays nobody. One that raises is logged, counted, and
    gets the next message. Subscriptions outlive a lost connection; what was published meanwhile is missed.
    """

    async def start(self) -> None:
        """Begin to connect, and never wait for it."""

    async def close(self) -> None:
        """End all subscriptions and the connection. May be called twice."""

    async def publish(self, subject: str, payload: bytes) -> None:
        """Hand `payload` to everyone who listens to `subject` now.

        Raises ValueError for a subject that is none or a payload above PAYLOAD_BYTES_MAX, StoreError while
        there is no connection.
        """

    async def subscribe(
        self, subject: str, handler: Handler, *, queue: str = "", pending_max: int = 65_536
    ) -> Subscription:
        """Every message from now on; `*` stands for one word, a last `>` for one and more.

        Of all with the same `queue` one gets each message. Beyond `pending_max` waiting ones new ones are
        dropped.
        """

    async def answer(self, subject: str, answerer: Answerer, *, queue: str = "") -> Subscription:
        """Answer requests, each in a task of its own. Who raises gives no answer."""

    async def request(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        """The first answer. Raises NoAnswer, at once, when nobody listens, TimeoutError when nobody answers,
        StoreError while there is no connection."""

    def health(self) -> ComponentHealth:
        """Whether messages travel."""
