"""Opens the bus that the configuration names: inside the process, or NATS."""

import logging
from typing import TYPE_CHECKING

from tradeback.model.config import Config, NatsConfig
from tradeback.model.errors import StartupError
from tradeback.stores.bus_local import LocalBus
from tradeback.stores.ports_bus import Bus

if TYPE_CHECKING:
    from tradeback.stores.bus_nats import NatsBus


def open_bus(config: Config, log: logging.Logger, name: str = "tradeback") -> Bus:
    """The bus of this configuration. Connects to nothing before its `start`.

    Raises StartupError when NATS is configured and its client library is not installed.
    """
    return nats_bus(config.nats, log, name) if config.nats.url else LocalBus(log)


def nats_bus(config: NatsConfig, log: logging.Logger, name: str) -> "NatsBus":
    """The bus over NATS. Raises StartupError when its client library is not installed."""
    try:
        from tradeback.stores.bus_nats import NatsBus
    except ModuleNotFoundError as error:
        raise StartupError(
            f"NATS_URL is set and {error.name} is not installed: pip install 'tradeback[nats]', "
            "or unset NATS_URL"
        ) from None
    return NatsBus(config, log, name)
