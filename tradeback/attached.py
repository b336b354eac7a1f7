"""What an engine has beside its flow: servers behind cursors of their own, what nodes share, settlements.

Each function makes something, shows it in health and metrics, and appends to `closing` what ends it.
"""

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tradeback.api.context import ServingContext
from tradeback.ops.log import get_log
from tradeback.stores.ports import Accounts
from tradeback.stores.series_sqlite import SeriesSqlite

if TYPE_CHECKING:
    from tradeback.derive.state import Derived

Closing = list[Callable[[], Awaitable[None] | None]]
"""What an engine calls when it stops, the last first."""


def share(context: ServingContext, accounts: Accounts, closing: Closing) -> None:
    """Other nodes see our sessions and market watches, and we theirs; others get our answers of bars."""
    from tradeback.stores.latest import open_latest
    from tradeback.stores.latest_bars import SharedBars
    from tradeback.stores.latest_mirror import Mirror

    config, clock, access = context.config, context.clock, context.access
    assert access is not None
    latest = open_latest(config, clock)
    closing.append(latest.close)
    mirror = Mirror(latest, accounts, clock, get_log("latest"))
    mirror.attach(access.sessions, access.watch)
    mirror.on_ended.append(access.ended_elsewhere)
    mirror.start()
    closing.append(mirror.stop)
    context.components.append(mirror)
    context.collectors.append(mirror)
    bars = SharedBars(latest, clock, config.redis.bars_ttl_s)
    bars.start()
    closing.append(bars.stop)
    context.share_bars = bars.offer


def start_drains(context: ServingContext, series: SeriesSqlite, derived: "Derived", closing: Closing) -> None:
    """The servers that are configured, each behind a cursor of its own. The recorder's work otherwise."""
    from tradeback.sinks.servers import server_drains

    tape, reader, symbols = context.tape, context.reader, context.symbols
    assert reader is not None
    drains = server_drains(
        context.config, reader, lambda: tape.next_sequence, series, derived, lambda: symbols, context.clock
    )
    for drain in drains:
        drain.start()
        closing.append(drain.stop)
        context.components.append(drain)
        context.collectors.append(drain)


async def answer_on_bus(context: ServingContext, series: SeriesSqlite, closing: Closing) -> None:
    """Requests of other nodes and programs, from what the HTTP routes answer from."""
    from tradeback.api.bus_answers import BusAnswers
    from tradeback.stores.bus import open_bus

    node = context.config.nats.node
    bus = open_bus(context.config, logging.getLogger("tradeback.bus"), f"tradeback {node} answers")
    answers = BusAnswers(context, bus, node, series.load)
    closing.append(answers.stop)
    await answers.start()
    context.components.append(answers)
    context.collectors.append(answers)


async def start_settlements(context: ServingContext, closing: Closing) -> None:
    """Prices that are to be fixed at a time: those of the last run, and new ones."""
    from tradeback.api.settlement import SettlementDesk
    from tradeback.stores.settlements_sqlite import SettlementsSqlite

    store = SettlementsSqlite(Path(context.config.data_dir) / "settlements.sqlite")
    closing.append(store.close)
    desk = SettlementDesk(context, store)
    if context.access is not None:
        desk.push = context.access.push
    await desk.restore()
    context.settlements = desk
    context.components.append(desk)
    context.collectors.append(desk)
    closing.append(desk.stop)
    desk.start()
