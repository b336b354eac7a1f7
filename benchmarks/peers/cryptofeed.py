"""cryptofeed: aggTrades (it has no others of Binance) and bookTicker, through its FeedHandler, on uvloop."""

import asyncio
from typing import Any

import cryptofeed.connection as wires
import uvloop
from cryptofeed import FeedHandler
from cryptofeed.connection import RestEndpoint, Routes, WebsocketEndpoint
from cryptofeed.defines import TICKER, TRADES
from cryptofeed.exchanges import Binance

from benchmarks.peers.child import Record, Task, main


def _point_at(task: Task) -> None:
    """It accepts wss:// only, so its addresses say so, and what opens them takes that away again."""
    plain = wires.connect

    def connect(address: str, **options: Any) -> Any:
        return plain(address.replace("wss://", "ws://", 1), **options)

    wires.connect = connect
    Binance.websocket_endpoints = [WebsocketEndpoint(task.ws.replace("ws://", "wss://", 1))]
    Binance.rest_endpoints = [RestEndpoint(task.rest, routes=Routes("/api/v3/exchangeInfo"))]


def run(task: Task, record: Record) -> None:
    """Read for ever."""
    _point_at(task)
    names = {f"{base}-{quote}": name for name, base, quote in task.symbols}

    async def on_trade(trade: Any, received_s: float) -> None:
        record.trade(names[trade.symbol], int(trade.id))

    async def on_ticker(ticker: Any, received_s: float) -> None:
        record.quote()

    handler = FeedHandler(config={"log": {"disabled": True}, "uvloop": True})
    # It takes the loop that is there, and with Python 3.11 or later nobody has made one.
    asyncio.set_event_loop(uvloop.new_event_loop())
    callbacks = {TRADES: on_trade, TICKER: on_ticker}
    handler.add_feed(Binance(symbols=list(names), channels=[TRADES, TICKER], callbacks=callbacks, retries=-1))
    handler.run()


if __name__ == "__main__":
    main(run, "cryptofeed", "websockets", "uvloop")
