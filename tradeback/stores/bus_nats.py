"""The bus over NATS. nats-py is imported by this module, so import it only when NATS is configured.

One client per connection, connected by our own loop: nats-py's first connect repeats itself for two minutes,
and after a reconnect its buffer holds messages of which nobody knows whether they arrived. Here a lost
connection loses what was on its way, callers are told, and readers are subscribed anew.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from tradeback.model.config import NatsConfig
from tradeback.model.errors import StoreError
from tradeback.ops.clock import SystemClock
from tradeback.ops.health import ComponentHealth, State
from tradeback.ops.tasks import finish
from tradeback.ops.troubles import Troubles
from tradeback.stores.bus_denied import Denials, last_words
from tradeback.stores.bus_readers import Answering, Calls
from tradeback.stores.bus_subjects import check_payload, check_subject
from tradeback.stores.ports_bus import Answerer, Handler, Message, NoAnswer

CONNECT_S = 5.0
"""Longest attempt to connect, over all servers of the url."""
BUFFER_BYTES = 8 * 1024 * 1024
CLOSE_S = 1.0
FLUSH_S = 5
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 2.0
DROPS_TOLD_S = 10.0
"""Lost messages of slow readers are logged once in this time."""
LIMITS = {
    "maximum connections": "max_connections",
    "maximum account active connections": "max_connections",
    "maximum payload": "max_payload",
    "maximum subscriptions": "max_subscriptions",
}
"""What a server says when one of its limits is reached, and the key that raises it."""

Prepare = Callable[["NatsBus", Any], Awaitable[None]]


class NatsSubscription:
    """See `ports_bus.Subscription`. Lives over connections."""

    def __init__(
        self,
        bus: "NatsBus",
        subject: str,
        queue: str,
        pending_max: int,
        deliver: Callable[[Msg], Awaitable[None]],
    ) -> None:
        self.subject, self.queue, self.pending_max = subject, queue, pending_max
        self.dropped = 0
        self.answering: Answering | None = None
        self._bus, self._deliver = bus, deliver
        self._held: Any = None

    async def begin(self, client: Client) -> None:
        """Subscribe on a new connection."""

        async def deliver(message: Msg) -> None:
            await self._deliver(message)

        self._held = await client.subscribe(
            self.subject, self.queue, deliver, pending_msgs_limit=self.pending_max
        )

    def holds(self, subscription: Any) -> bool:
        """Whether this is the subscription of the client behind it."""
        return subscription is not None and subscription is self._held

    async def end(self) -> None:
        """See Subscription."""
        self._bus.forget(self)
        held, self._held = self._held, None
        if held is not None:
            with contextlib.suppress(nats.errors.Error):
                await held.unsubscribe()
        if self.answering is not None:
            await self.answering.end()


class NatsBus:
    """See `ports_bus.Bus`. One loop.

    `connected` is set while there is a connection. `on_connect`: called after each connect, when the readers
    are subscribed.
    """

    def __init__(self, config: NatsConfig, log: logging.Logger, name: str = "tradeback") -> None:
        self.config = config
        self.server = shown(config.url)
        self.connected = asyncio.Event()
        self.on_connect: list[Callable[[], None]] = []
        self.connects = 0
        self.last_error: str | None = None
        self.troubles = Troubles(SystemClock())
        """What is wrong with the server, for all who use it through this bus."""
        self.denials = Denials()
        self._log, self._name = log, name
        self._calls = Calls(log)
        self._client: Client | None = None
        self._lost = asyncio.Event()
        self._subscriptions: list[NatsSubscription] = []
        self._task: asyncio.Task[None] | None = None
        self._state: State = "starting"
        self._since_ns = time.time_ns()
        self._drops_told = 0.0

    # Life.

    async def start(self) -> None:
        """See Bus."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="bus")

    async def close(self) -> None:
        """See Bus."""
        if self._task is not None:
            await finish([self._task])
            self._task = None
        for subscription in self._subscriptions.copy():
            await subscription.end()

    async def ready(self, timeout_s: float) -> None:
        """Until there is a connection. Raises StoreError, which says what is wrong, when it takes longer."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.connected.wait()
        except TimeoutError:
            raise StoreError(self.last_error or f"NATS at {self.server} does not answer") from None

    async def _run(self) -> None:
        failures = 0
        while True:
            client = Client()
            try:
                await self._connect(client)
                not_cancelled()
                failures = 0
                await self._lost.wait()
                self._become("down", f"the connection to NATS at {self.server} was lost; connecting again")
            except Exception as error:  # the boundary to a library: whatever it is, we try again
                failures += 1
                self._become("down", explain(error, self.server))
            finally:
                self._client = None
                self.connected.clear()
                await _abandon(client)
                not_cancelled()
            await asyncio.sleep(min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures, 10)))

    async def _connect(self, client: Client) -> None:
        self._lost.clear()
        self.denials.clear()
        noted: list[Exception] = []

        async def on_error(error: Exception) -> None:
            if not self.connected.is_set():
                noted.append(error)
            self._on_error(error)

        async def on_closed() -> None:
            if self._client is client:
                self._lost.set()

        try:
            async with asyncio.timeout(CONNECT_S):
                await client.connect(
                    [url.strip() for url in self.config.url.split(",")],
                    error_cb=on_error,
                    closed_cb=on_closed,
                    name=self._name,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=2,
                    # Two signs of life that stay away end it. Fractions of a second are fine.
                    ping_interval=self.config.timeout_s,  # type: ignore[arg-type]
                    max_outstanding_pings=2,
                    pending_size=BUFFER_BYTES,
                )
                for subscription in self._subscriptions.copy():
                    await subscription.begin(client)
                await _flushed(client, 2)
        except Exception as error:
            said = noted[-1] if noted else error
            raise await last_words(self.config.url.partition(",")[0], said) from None
        self._client = client
        if client.is_closed:
            raise StoreError(f"NATS at {self.server} has closed the connection")
        self.connects += 1
        self.connected.set()
        denied = self.denials.any()
        self._become("ok" if denied is None else "degraded", denied)
        for tell in self.on_connect:
            tell()

    def _on_error(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            for subscription in self._subscriptions:
                if subscription.holds(error.sub):
                    subscription.dropped += 1
            now = time.monotonic()
            if now - self._drops_told > DROPS_TOLD_S:
                self._drops_told = now
                self._log.warning("bus: a reader of %s is too slow and loses messages", error.subject)
        elif "permissions violation" in str(error).lower():
            words = explain(error, self.server)
            self.denials.note(str(error), words)
            self._become("degraded" if self.connected.is_set() else self._state, words)

    def _become(self, state: State, words: str | None) -> None:
        if state != self._state:
            self._since_ns = time.time_ns()
        if words is not None and self.troubles.is_news(words):
            self._log.warning("bus: %s", words)
        elif words is None and self._state == "down":
            self._log.warning("bus: connected to NATS at %s again", self.server)
        self._state, self.last_error = state, words

    # What the role promises.

    async def publish(self, subject: str, payload: bytes) -> None:
        """See Bus."""
        check_subject(subject)
        check_payload(payload)
        await self.send(subject, payload)

    async def send(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> None:
        """Publish with headers. Raises StoreError while there is no connection."""
        try:
            await self.client.publish(subject, payload, headers=headers)
        except nats.errors.Error as error:
            raise StoreError(explain(error, self.server)) from error
        finally:
            not_cancelled()

    async def subscribe(
        self, subject: str, handler: Handler, *, queue: str = "", pending_max: int = 65_536
    ) -> NatsSubscription:
        """See Bus."""

        async def deliver(message: Msg) -> None:
            await self._calls.handle(handler, Message(message.subject, message.data))

        return await self._subscribe(subject, queue, pending_max, deliver)

    async def answer(self, subject: str, answerer: Answerer, *, queue: str = "") -> NatsSubscription:
        """See Bus."""
        answering = Answering()

        async def deliver(message: Msg) -> None:
            async def send(answer: bytes) -> None:
                check_payload(answer)
                if message.reply:
                    await self.send(message.reply, answer)

            asked = Message(message.subject, message.data)
            await answering.begin(lambda: self._calls.reply(answerer, asked, send))

        made = await self._subscribe(subject, queue, 65_536, deliver)
        made.answering = answering
        return made

    async def request(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        """See Bus."""
        check_subject(subject)
        check_payload(payload)
        try:
            answer = await self.client.request(subject, payload, timeout=timeout_s)
        except nats.errors.NoRespondersError:
            raise NoAnswer(f"nobody answers on {subject} at NATS {self.server}") from None
        except nats.errors.TimeoutError:
            raise TimeoutError(f"no answer on {subject} within {timeout_s:g} s") from None
        except nats.errors.Error as error:
            raise StoreError(explain(error, self.server)) from error
        finally:
            not_cancelled()
        return bytes(answer.data)

    async def _subscribe(
        self, subject: str, queue: str, pending_max: int, deliver: Callable[[Msg], Awaitable[None]]
    ) -> NatsSubscription:
        check_subject(subject, pattern=True)
        made = NatsSubscription(self, subject, queue, pending_max, deliver)
        self._subscriptions.append(made)
        if self._client is not None:
            try:
                await made.begin(self._client)
                await _flushed(self._client, 2)
            except nats.errors.Error:
                pass  # the connection has just gone: the next one gets the subscription
            finally:
                not_cancelled()
        return made

    def forget(self, subscription: NatsSubscription) -> None:
        """It has ended."""
        with contextlib.suppress(ValueError):
            self._subscriptions.remove(subscription)

    async def flush(self) -> None:
        """Until the server has everything that was published. Raises StoreError when it does not say so."""
        try:
            await _flushed(self.client, min(FLUSH_S, self.config.timeout_s))
        except nats.errors.Error as error:
            raise StoreError(explain(error, self.server)) from error
        finally:
            not_cancelled()

    def check_permitted(self, before: int, *prefixes: str) -> None:
        """Raise StoreError when the server has denied publishing to such a subject since `denials.count` was
        `before`. After `flush`: what it says of a message comes before its answer to what follows.
        """
        words = self.denials.since(before, *prefixes)
        if words is not None:
            raise StoreError(words)

    # For those who need more than the role: JetStream.

    @property
    def client(self) -> Client:
        """The client of the connection that there is. Raises StoreError when there is none."""
        if self._client is None or not self.connected.is_set():
            raise StoreError(self.last_error or f"NATS at {self.server} is not connected yet")
        return self._client

    def jetstream(self, timeout_s: float) -> JetStreamContext:
        """JetStream over the connection that there is. Raises StoreError when there is none."""
        return self.client.jetstream(timeout=timeout_s)

    # Telling.

    def health(self) -> ComponentHealth:
        """ok while connected, down otherwise, with the remedy."""
        details = {
            "server": self.server,
            "connects": self.connects,
            "dropped": sum(each.dropped for each in self._subscriptions),
            "readers_failed": self._calls.failed,
        }
        return ComponentHealth("bus", self._state, self._since_ns, self.last_error, None, details)


def not_cancelled() -> None:
    """Raise the CancelledError that nats-py has swallowed (its `_flush_pending` does), if it has.

    Otherwise a task that is cancelled while it publishes would go on for ever. Not for what cleans up.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _flushed(client: Client, timeout_s: float) -> None:
    """Until the server has answered a PING behind all that was published. Raises nats.errors.Error.

    Not by `Client.flush`: that cancels what it waits for when it is cancelled or takes too long, and the PONG
    that comes nevertheless, of a server that hung, ends the client's reader without anybody being told. And
    a PING goes straight to the socket, before messages that wait in the client: they are written first here.
    """
    if client.is_closed or client._transport is None:
        raise nats.errors.ConnectionClosedError
    pong = asyncio.get_running_loop().create_future()
    waiting, client._pending, client._pending_data_size = client._pending, [], 0
    if waiting:
        client._transport.writelines(waiting)
    await client._send_ping(pong)
    done, _ = await asyncio.wait({pong}, timeout=timeout_s)
    if not done:
        raise nats.errors.FlushTimeoutError


async def _abandon(client: Client) -> None:
    """Close what may be open, whatever state it is in."""
    with contextlib.suppress(Exception):  # the boundary to a library; the client is not used any more
        async with asyncio.timeout(CLOSE_S):
            await client.close()


def shown(url: str) -> str:
    """The servers of a url without credentials."""
    parts = [urlsplit(each.strip() if "//" in each else f"nats://{each.strip()}") for each in url.split(",")]
    return ", ".join(f"{part.hostname}:{part.port or 4222}" for part in parts)


def explain(error: BaseException, server: str) -> str:
    """What is wrong, and the remedy, in one line without credentials."""
    text = (str(error) or type(error).__name__).removeprefix("nats: ").strip("' ")
    low = text.lower()
    if isinstance(error, StoreError):
        return text
    if "authorization" in low or "authentication" in low:
        return (
            f"NATS at {server} refuses the credentials ({text}): "
            "write them into NATS_URL before the host, USER:PASSWORD@ or TOKEN@"
        )
    if "permissions violation" in low:
        return (
            f"NATS at {server} does not permit this user what is needed ({text}): "
            "grant it publish on tradeback.> and $JS.API.>, subscribe on tradeback.> and _INBOX.>"
        )
    for limit, key in LIMITS.items():
        if limit in low:
            return f"NATS at {server} has reached a limit ({text}): raise {key} of the server or the account"
    if isinstance(error, OSError | TimeoutError | nats.errors.NoServersError):
        reason = "it does not answer in time" if isinstance(error, TimeoutError) else text
        return f"NATS at {server} cannot be reached ({reason}): start the server, or correct NATS_URL"
    return f"NATS at {server}: {text}"
