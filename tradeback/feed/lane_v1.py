"""Version 1 of the feed: trades as floats. A slow client gets last prices with summed volumes."""

from collections.abc import Callable

import numpy as np

from tradeback.feed.catchup import CatchUp
from tradeback.feed.client import Client
from tradeback.feed.counts import Counts
from tradeback.feed.fanout import FanOut
from tradeback.feed.interest import EVERYTHING, Interest, InterestTable, union, without
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.path.path import Path
from tradeback.wire import control
from tradeback.wire.frames import v1_frames
from tradeback.wire.v1 import ENTRY, Entries

LatestPrice = Callable[[int], float | None]
"""Last known trade price of a symbol id from before the feed's first batch, or None."""


class LaneV1:
    """See `feed.lane`."""

    version = 1

    def __init__(self, path: Path, symbols: SymbolTable, latest_price: LatestPrice, counts: Counts) -> None:
        self.table = InterestTable()
        self.fanout = FanOut(path, self.table, self.version)
        self._catchup = CatchUp(path.tape, symbols)
        self._latest_price = latest_price
        self._counts = counts

    def attach(self) -> None:
        """Take the kernels."""
        from tradeback.kernel.jit import address
        from tradeback.wire.v1_kernel import encode_groups

        self.fanout.attach(address(encode_groups))
        self._catchup.attach()

    def subscribe(
        self, client: Client, channels: tuple[str, ...], asked: Interest, symbols: list[Symbol]
    ) -> None:
        """First the last known prices, with volume 0, of the symbols that have one."""
        if control.TRADES not in channels:
            return
        held = client.interest
        fresh = [] if held == EVERYTHING else [symbol.id for symbol in symbols if symbol.id not in held]
        entries = self._snapshot(fresh)
        if len(entries):
            client.write(v1_frames(entries))
        self._catchup.learn(asked)
        self._change(client, union(held, asked))

    def unsubscribe(
        self, client: Client, channels: tuple[str, ...], gone: Interest, known: list[int]
    ) -> None:
        """Deliver these no more."""
        if control.TRADES in channels:
            self._change(client, without(client.interest, gone, known))

    def position(self, client: Client) -> None:
        """Version 1 knows no sequence."""
        return

    def behind(self, client: Client, oldest_hot: int) -> bool:
        """What it missed is folded from the hot ring only."""
        return client.cursor < oldest_hot

    def drained(self, client: Client) -> None:
        """One entry per symbol for all that was missed, then live again."""
        entries = self._catchup.entries(client.interest, client.cursor, self.fanout.position)
        if len(entries):
            self._counts.conflated += len(entries)
            client.write(v1_frames(entries))
        if not client.lagging:
            self.fanout.enter(client)

    def leaving(self, client: Client) -> None:
        """Deliver nothing more."""
        self.fanout.leave(client)

    def _change(self, client: Client, interest: Interest) -> None:
        """Move a client to the group of another interest; a lagging one joins it when it has drained."""
        if interest == client.interest:
            return
        self.fanout.leave(client)
        client.interest = interest
        if not client.lagging and not client.closing:
            self.fanout.enter(client)

    def _snapshot(self, ids: list[int]) -> Entries:
        last_price = self.table.last_price
        rows = []
        for symbol_id in ids:
            price: float | None = float(last_price[symbol_id]) or self._latest_price(symbol_id)
            if price:
                rows.append((symbol_id, price, 0.0))
        return np.array(rows, ENTRY)
