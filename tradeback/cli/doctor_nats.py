"""`tradeback doctor`: NATS, where it is configured."""

import logging
from typing import TYPE_CHECKING

from tradeback.cli.doctor import Finding
from tradeback.model.errors import StartupError, StoreError

if TYPE_CHECKING:
    from tradeback.model.config import Config

REACH_S = 5.0


async def check_nats(config: "Config") -> Finding | None:
    """The server, and JetStream if it is wanted; None when NATS is not configured. Changes nothing there."""
    if not config.nats.url:
        return None
    from tradeback.stores.bus import nats_bus

    quiet = logging.Logger("tradeback.doctor", logging.CRITICAL + 1)
    try:
        bus = nats_bus(config.nats, quiet, "tradeback doctor")
    except StartupError as error:
        return Finding("NATS", "fail", str(error), "install it, or unset NATS_URL")
    await bus.start()
    try:
        await bus.ready(REACH_S)
        version = bus.client.connected_server_version
        told = f"{version.major}.{version.minor}.{version.patch}"
        found = f"{bus.server}, nats-server {told}, node {config.nats.node}"
        if not config.nats.jetstream:
            return Finding("NATS", "ok", f"{found}, without a stream")
        from tradeback.stores.nats_stream import TapeStream

        held = await TapeStream(bus, config.nats).holds()
        words = "no stream yet: the engine makes it" if held is None else f"{held} messages in its stream"
        return Finding("NATS", "ok", f"{found}, JetStream, {words}")
    except StoreError as error:
        found, _, remedy = str(error).rpartition(": ")
        return Finding("NATS", "fail", found, remedy)
    finally:
        await bus.close()
