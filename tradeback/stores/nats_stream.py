"""The stream of a node's tape in JetStream: one subject, one publisher, no hole and no double.

Every message is published with the number of the one before it (Nats-Expected-Last-Sequence): what follows
a lost one is refused by the server, so the stream has the tape's order whatever broke when. So only
the last message of a run needs an acknowledgement. Reading is by number, one request a message and many on
their way: nothing about a reader is kept on the server, so nothing of it can be lost.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

import nats.errors
from nats.js import errors as js
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from tradeback.model.config import NatsConfig
from tradeback.model.errors import StoreError
from tradeback.stores.bus_nats import NatsBus, explain, not_cancelled

READS_MAX = 64
"""Messages asked for at once."""
DUPLICATES_S = 120.0
WRONG_LAST = 10071
NOT_FOUND = 10059
NO_RESOURCES = (10002, 10023, 10028, 10047)
MAX_STREAMS = 10027
DISABLED = (10039, 10076)


class LastChanged(StoreError):
    """Another message than expected is the stream's last: read it anew."""


class StreamState(NamedTuple):
    """Numbers of the first and the last message; none are there when `first` > `last`."""

    first: int
    last: int


def stream_name(node: str) -> str:
    """The stream of a node's tape."""
    return f"tradeback_{node}"


def tape_subject(node: str) -> str:
    """Where the batches of a node's tape are published."""
    return f"tradeback.ticks.{node}"


class TapeStream:
    """Over the bus's connection. Every call raises StoreError with the remedy, and takes `nats.timeout`."""

    def __init__(self, bus: NatsBus, config: NatsConfig) -> None:
        self._bus, self._config = bus, config
        self.name, self.subject = stream_name(config.node), tape_subject(config.node)

    async def ensure(self) -> None:
        """Make the stream, or give it the limits of the configuration."""
        config = self._config
        wanted = StreamConfig(
            name=self.name,
            subjects=[self.subject],
            description="Batches of a tradeback tape, wire version 2",
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            storage=StorageType.FILE,
            max_bytes=config.stream_bytes,
            max_age=config.stream_age_s,
            duplicate_window=min(DUPLICATES_S, config.stream_age_s),
            allow_direct=True,
        )
        held = await self._info()
        if held is None:
            await self._call(self._js.add_stream(wanted))
        elif not _is_alike(held.config, wanted):
            await self._call(self._js.update_stream(wanted))

    async def state(self) -> StreamState:
        """Which messages are there. Raises StoreError when there is no stream."""
        info = await self._info()
        if info is None:
            raise StoreError(
                f"NATS at {self._bus.server} has no stream {self.name}: start the engine whose nats.node is "
                f"{self._config.node!r}, with nats.jetstream, or correct NATS_NODE"
            )
        return StreamState(max(1, info.state.first_seq), info.state.last_seq)

    async def holds(self) -> int | None:
        """How many messages the stream has; None when there is no stream."""
        info = await self._info()
        return None if info is None else int(info.state.messages)

    async def read(self, number: int) -> bytes | None:
        """One message; None when it is not there (any more)."""
        try:
            found = await self._call(self._js.get_msg(self.name, seq=number, direct=True))
        except _NotThere:
            return None
        return bytes(found.data or b"")

    async def published_s(self, number: int) -> float | None:
        """When a message was taken, unix seconds by the server's clock; None when it is not there."""
        try:
            found = await self._call(self._js.get_msg(self.name, seq=number))
        except _NotThere:
            return None
        return float(found.time.timestamp())

    async def read_many(self, numbers: Iterable[int]) -> list[bytes | None]:
        """Several messages in their order, asked for together; READS_MAX at the most."""
        return list(await asyncio.gather(*(self.read(number) for number in numbers)))

    async def append(self, messages: list[tuple[str, bytes]], last: int) -> int:
        """Publish (id, payload) behind message number `last`; the new last number.

        Raises LastChanged when another one is the last. After any error the caller does not know how many of
        them the stream has, and reads its state.
        """
        client, number, before = self._bus.client, last, self._bus.denials.count
        try:
            for name, payload in messages[:-1]:
                await client.publish(self.subject, payload, headers=_headers(name, number))
                number += 1
        except nats.errors.Error as error:
            raise StoreError(explain(error, self._bus.server)) from error
        finally:
            not_cancelled()
        name, payload = messages[-1]
        stored = await self._call(
            self._js.publish(self.subject, payload, stream=self.name, headers=_headers(name, number)), before
        )
        if stored.seq != number + 1:
            raise LastChanged(f"message {name} stands at {stored.seq} of {self.name}, not at {number + 1}")
        return number + 1

    @property
    def _js(self) -> Any:
        return self._bus.jetstream(self._config.timeout_s)

    async def _info(self) -> StreamInfo | None:
        try:
            found: StreamInfo = await self._call(self._js.stream_info(self.name))
        except _NotThere:
            return None
        return found

    async def _call(self, call: Any, denials: int | None = None) -> Any:
        """`denials`: the bus's count before what `call` completes; without it, as of now."""
        before = self._bus.denials.count if denials is None else denials
        try:
            async with asyncio.timeout(self._config.timeout_s + 0.5):
                return await call
        except js.NotFoundError as error:
            raise _NotThere(str(error)) from error
        except js.APIError as error:
            if error.err_code == WRONG_LAST:
                raise LastChanged(f"{self.name}: {error.description}") from error
            raise StoreError(self._explain(error)) from error
        except (js.NoStreamResponseError, nats.errors.NoRespondersError) as error:
            raise StoreError(self._disabled()) from error
        except TimeoutError as error:
            # A server that does not permit a message drops it, and says so beside the call.
            self._bus.check_permitted(before, "$JS.", "_INBOX.", self.subject)
            raise StoreError(
                f"JetStream at NATS {self._bus.server} does not answer in time: "
                "see whether the server hangs, or is short of disk"
            ) from error
        except nats.errors.Error as error:
            raise StoreError(explain(error, self._bus.server)) from error
        finally:
            not_cancelled()

    def _explain(self, error: js.APIError) -> str:
        words = error.description or str(error)
        if isinstance(error, js.ServiceUnavailableError) or error.err_code in DISABLED:
            return self._disabled()
        if error.err_code in NO_RESOURCES:
            return (
                f"JetStream at NATS {self._bus.server} has no room for the stream {self.name} ({words}): "
                "lower NATS_STREAM_BYTES, or raise max_file_store of the server or max_file of the account"
            )
        if error.err_code == MAX_STREAMS:
            return (
                f"JetStream at NATS {self._bus.server} makes no more streams ({words}): "
                "raise max_streams of the account"
            )
        return (
            f"JetStream at NATS {self._bus.server} refuses the stream {self.name} ({words}): "
            "lower NATS_STREAM_BYTES or NATS_STREAM_AGE, or raise what the account may have"
        )

    def _disabled(self) -> str:
        return (
            f"JetStream is not enabled at NATS {self._bus.server}: start nats-server with -js, "
            "or set NATS_JETSTREAM=false (no stream, and no edge nodes)"
        )


class _NotThere(StoreError):
    """The stream, or the message, does not exist."""


def _headers(name: str, last: int) -> dict[str, str]:
    return {"Nats-Msg-Id": name, "Nats-Expected-Last-Sequence": str(last)}


def _is_alike(held: StreamConfig, wanted: StreamConfig) -> bool:
    names = ("subjects", "max_bytes", "max_age", "allow_direct", "duplicate_window")
    return all(getattr(held, name) == getattr(wanted, name) for name in names)
