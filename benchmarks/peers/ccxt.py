"""ccxt.pro: watch_trades_for_symbols and watch_bids_asks, each awaited in a loop, as its manual shows."""

import asyncio
from typing import Any

import ccxt.pro

from benchmarks.peers.child import Record, Task, main


def _exchange(task: Task) -> Any:
    exchange = ccxt.pro.binance({"newUpdates": True, "enableRateLimit": False})
    exchange.options.update(
        defaultType="spot", fetchMarkets={"types": ["spot"]}, fetchCurrencies=False, fetchMargins=False
    )
    exchange.has["fetchCurrencies"] = False
    # "/stream" in the address is how it tells spot from the others. It appends "/0" and the like, a stream
    # that does not exist; here the query takes it.
    exchange.urls["api"]["ws"]["spot"] = f"{task.ws}/ws?is=/stream"
    exchange.urls["api"]["public"] = f"{task.rest}/api/v3"
    return exchange


def _count_decoded(exchange: Any) -> list[int]:
    """How many bookTickers it has decoded; most are replaced by a newer one before a user sees them."""
    decoded, handle = [0], exchange.handle_bids_asks

    def counted(client: Any, message: Any) -> None:
        decoded[0] += 1
        handle(client, message)

    exchange.handle_bids_asks = counted
    return decoded


async def _trades(exchange: Any, names: dict[str, str], record: Record) -> None:
    while True:
        try:
            for trade in await exchange.watch_trades_for_symbols(list(names)):
                record.trade(names[trade["symbol"]], int(trade["id"]))
        except ccxt.NetworkError as error:
            record.tell("exception", f"{type(error).__name__}: {error}")


async def _quotes(exchange: Any, names: dict[str, str], record: Record) -> None:
    decoded, seen = _count_decoded(exchange), 0
    while True:
        try:
            for _ in await exchange.watch_bids_asks(list(names)):
                record.quote()
                seen += 1
            record.conflated = decoded[0] - seen
        except ccxt.NetworkError as error:
            record.tell("exception", f"{type(error).__name__}: {error}")


async def _follow(task: Task, record: Record) -> None:
    exchange = _exchange(task)
    names = {f"{base}/{quote}": name for name, base, quote in task.symbols}
    await exchange.load_markets()
    await asyncio.gather(_trades(exchange, names, record), _quotes(exchange, names, record))


def run(task: Task, record: Record) -> None:
    """Read for ever."""
    asyncio.run(_follow(task, record))


if __name__ == "__main__":
    main(run, "ccxt", "aiohttp")
