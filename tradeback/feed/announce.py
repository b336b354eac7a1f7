"""Tells clients that want every symbol what a symbol is that came after their subscription, or has changed.

They get one more `subscribed` with the wire id and the decimals, before the first record of it. Version 2
clients of before that message ask by themselves; for version 1 it is the only way to name the id.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson

from tradeback.model.symbols import Symbol
from tradeback.wire import control
from tradeback.wire.v2_layout import SYMBOL_IDS

if TYPE_CHECKING:
    from tradeback.feed.server import Feed


def announce(feed: "Feed", symbols: Sequence[Symbol]) -> None:
    """Describe these symbols, which the table has by now, to the clients whom they concern. Loop thread."""
    feed.v2.learn(symbols)
    ids = {symbol.id for symbol in symbols}
    for client in list(feed.clients):
        wanted = {subject % SYMBOL_IDS for subject in client.interest | client.enigma}
        concerned = symbols if 0 in wanted else [symbol for symbol in symbols if symbol.id in wanted & ids]
        if concerned:
            client.send_text(orjson.dumps(control.subscribed(concerned)))
    if symbols and feed.attendance is not None:
        feed.attendance.symbols_came()
