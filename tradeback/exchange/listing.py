"""Which symbols there are: exchangeInfo, asked until it answers, and the choice of the configuration."""

import asyncio
import random

from tradeback.exchange.backoff import Backoff
from tradeback.exchange.rest import NoExchange, Rest
from tradeback.model.clock import Clock
from tradeback.model.config import ExchangeConfig
from tradeback.model.errors import ExchangeError, RateLimited, StartupError
from tradeback.model.symbols import SYMBOL_BYTES_MAX, Symbol
from tradeback.ops.log import Log
from tradeback.stores.ports import SymbolIds, SymbolRecord

ALL = ("*",)


class Listing:
    """The symbol table's source. `rest` is the session that others may use too."""

    def __init__(self, config: ExchangeConfig, log: Log, clock: Clock) -> None:
        self._config, self._log, self._clock = config, log, clock
        self.rest = Rest(config.rest_endpoint, clock)
        self.records: list[SymbolRecord] = []
        """All that the exchange lists; empty when it could not be reached."""
        self.waiting_for = "the kernels and the exchange's symbols"
        """What keeps the engine from coming up, for /health/ready."""

    async def close(self) -> None:
        """End the REST session."""
        await self.rest.close()

    async def symbols(self, registry: SymbolIds) -> list[Symbol]:
        """The wanted symbols with their wire ids.

        While the exchange cannot be reached: those of the last run, if it knew all that are wanted, so
        that the tape is served; else waits. Raises StartupError for symbols that the exchange does not
        have, and for an address that answers but is no exchange.
        """
        known = self._known(await registry.all_symbols())
        records = await self._ask(once=bool(known))
        if records is None:
            return known
        self.records = records
        return await registry.assign_ids(self._choose(records))

    def _known(self, held: list[Symbol]) -> list[Symbol]:
        """The wanted symbols as the last run knew them; none when one of them is new."""
        if self._config.symbols == ALL:
            return [symbol for symbol in held if symbol.is_active]
        by_name = {symbol.symbol: symbol for symbol in held}
        wanted = [by_name[name] for name in self._config.symbols if name in by_name]
        return wanted if len(wanted) == len(self._config.symbols) else []

    async def _ask(self, once: bool) -> list[SymbolRecord] | None:
        """exchangeInfo; None when the exchange cannot be reached and `once` is asked for."""
        backoff = Backoff(self._config.backoff_first_s, self._config.backoff_max_s)
        failures = 0
        while True:
            try:
                return await self.rest.symbols()
            except RateLimited as error:
                wait_s = error.retry_after_s
                self._log.warning(str(error))
            except ExchangeError as error:
                if isinstance(error, NoExchange) or (400 <= error.status < 500 and error.status != 408):
                    raise StartupError(
                        f"{error}. Point EXCHANGE_REST_ENDPOINT at Binance's REST or at `tradeback sim`"
                    ) from error
                failures += 1
                wait_s = backoff.delay_s(failures, random.random())
                self._log.warning(
                    f"the exchange cannot be reached: {error}. Trying again; without a network, "
                    "`tradeback demo` runs on a simulated exchange",
                    again_in_s=round(wait_s, 2),
                )
                self.waiting_for = f"the exchange's symbols: {error}"
                if once:
                    return None
            await asyncio.sleep(wait_s)

    def _choose(self, records: list[SymbolRecord]) -> list[SymbolRecord]:
        fitting = [record for record in records if len(record.symbol.encode()) < SYMBOL_BYTES_MAX]
        if self._config.symbols == ALL:
            return [record for record in fitting if record.is_active]
        by_name = {record.symbol: record for record in fitting}
        unknown = [name for name in self._config.symbols if name not in by_name]
        if unknown:
            raise StartupError(
                f"the exchange does not have {', '.join(unknown[:10])}: correct EXCHANGE_SYMBOLS "
                '(exchange.symbols), or use "*" for all'
            )
        return [by_name[name] for name in self._config.symbols]
