"""A book kept by the documented procedure from snapshot and diffs equals the simulator's own."""

import json

from tests.sim.tools import START_US, body
from tradeback.sim.channels import Hub, Listener
from tradeback.sim.market import Synthetic
from tradeback.sim.periodic import TICK_US, Periodic


def test_snapshot_and_diffs_give_the_book_and_every_quote() -> None:
    market = Synthetic(1, 4_000, 3)
    frames: list[bytes] = []
    hub = Hub()
    market.attach(hub)
    periodic = Periodic(market, hub)
    now_us = market.begin(START_US)
    hub.subscribe("btcusdt@depth@100ms", 1, Listener(frames.append, False, False))
    (book,) = market.books.values()
    snapshot_id, bids, asks = 0, dict[int, int](), dict[int, int]()
    for step in range(1, 61):
        # The snapshot falls between two messages, as it does in life.
        market.advance(now_us + TICK_US * step - 40_000, 10**9)
        if step == 5:
            levels = book.depth(2_000)
            snapshot_id, bids, asks = book.update_id, dict(levels[0]), dict(levels[1])
        market.advance(now_us + TICK_US * step, 10**9)
        periodic.tick(now_us // TICK_US * TICK_US + TICK_US * step)
    last = snapshot_id
    for number, text in enumerate(frames):
        update = json.loads(body(text))
        if number:
            assert update["U"] == json.loads(body(frames[number - 1]))["u"] + 1
        if update["u"] <= snapshot_id:
            continue
        assert update["U"] <= last + 1
        for side, changes in ((bids, update["b"]), (asks, update["a"])):
            for price, quantity in changes:
                key, value = int(price.replace(".", "")), int(quantity.replace(".", ""))
                if value:
                    side[key] = value
                else:
                    side.pop(key, None)
        last = update["u"]
    assert last == book.update_id
    assert len(frames) > 40
    own_bids, own_asks = book.depth(200)
    assert sorted(bids.items(), reverse=True)[:200] == own_bids
    assert sorted(asks.items())[:200] == own_asks
