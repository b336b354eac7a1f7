"""Opens the registry that the configuration names: SQLite, or MySQL with a copy of its symbols in SQLite."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.errors import StartupError
from tradeback.ops.log import Log
from tradeback.stores.ports import Accounts, SymbolIds
from tradeback.stores.registry_sqlite import RegistrySqlite

if TYPE_CHECKING:
    from tradeback.stores.registry_copy import SymbolCopy
    from tradeback.stores.registry_mysql import RegistryMysql


@dataclass(slots=True)
class OpenRegistry:
    """The role's two halves. `local` stays whoever opened it."""

    ids: SymbolIds
    """Gives wire ids; `Listing.symbols` takes it."""
    accounts: Accounts
    """Users, sessions, market watches, settings."""
    copy: "SymbolCopy | None" = None
    """Where MySQL is configured: start, stop, health, and `on_assigned`."""
    _close: Callable[[], Awaitable[None]] | None = None

    @property
    def missing(self) -> str | None:
        """What the server keeps a start waiting for, with the remedy; None when it does not."""
        return self.copy.missing if self.copy is not None else None

    async def close(self) -> None:
        """Stop watching and close the connections to the server; the local file stays open."""
        if self.copy is not None:
            await self.copy.stop()
        if self._close is not None:
            await self._close()


def open_registry(config: Config, local: RegistrySqlite, clock: Clock, log: Log) -> OpenRegistry:
    """The registry of this configuration. Connects to nothing yet.

    Raises StartupError when MySQL is configured and its client library is not installed.
    """
    if not config.mysql.host:
        return OpenRegistry(local, local)
    from tradeback.stores.registry_copy import SymbolCopy

    remote = mysql_registry(config)
    copy = SymbolCopy(remote, local, clock, log)
    return OpenRegistry(copy, remote, copy, remote.close)


def mysql_registry(config: Config) -> "RegistryMysql":
    """The registry in MySQL. Raises StartupError when its client library is not installed."""
    try:
        from tradeback.stores.registry_mysql import RegistryMysql
    except ModuleNotFoundError as error:
        raise StartupError(
            f"MYSQL_HOST is set and {error.name} is not installed: pip install 'tradeback[mysql]', "
            "or unset MYSQL_HOST"
        ) from None
    return RegistryMysql(config.mysql)
