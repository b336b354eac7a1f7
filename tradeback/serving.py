"""A feed over a tape, the series derived from it, and the sessions of its sockets: the same in the engine and
in every worker."""

from collections.abc import Callable

from tradeback.api.access import Access, rates_of
from tradeback.api.origins import Origins, Proxies
from tradeback.api.shapes import DerivedSeries, enigma_source
from tradeback.api.throttle import LoginThrottle
from tradeback.feed.attendance import Attendance
from tradeback.feed.server import Feed
from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.symbols import SymbolTable
from tradeback.ops.log import Log
from tradeback.path.path import HotTape, Path
from tradeback.stores.market_watch import MarketWatch
from tradeback.stores.ports import Accounts
from tradeback.stores.sessions import Lifetime, Sessions
from tradeback.stores.users import Users


def make_feed(
    config: Config,
    clock: Clock,
    symbols: SymbolTable,
    tape: HotTape,
    derived: Callable[[], DerivedSeries | None],
) -> Feed:
    """The feed of `tape`. `derived`: latest prices and levels, None while they are not known yet."""

    def latest_price(symbol_id: int) -> float | None:
        series = derived()
        state = series.latest(symbol_id) if series else None
        return float(state["price"]) if state is not None and state["trade_id"] >= 0 else None

    def enigma_of(symbol_id: int) -> dict[str, object] | None:
        series = derived()
        return enigma_source(symbols, series, symbol_id) if series else None

    return Feed(
        config.feed,
        clock,
        symbols,
        Path(tape),
        latest_price=latest_price,
        enigma_of=enigma_of,
        known=derived,
        features=config.feature,
    )


def make_attendance(config: Config, clock: Clock, feed: Feed, accounts: Accounts, log: Log) -> Attendance:
    """Whoever looks after the feed's sockets with sessions; not started yet."""
    lifetime = Lifetime(idle_s=config.auth.session_idle_s, absolute_s=config.auth.session_max_s)
    sessions = Sessions(accounts, clock, log, lifetime)
    feed.attendance = made = Attendance(feed.requests, sessions, MarketWatch(accounts, clock, log), log)
    return made


def make_access(config: Config, clock: Clock, feed: Feed, accounts: Accounts, log: Log) -> Access:
    """Sessions and limits of an engine. Its attendance and sessions are not started yet."""
    attendance = make_attendance(config, clock, feed, accounts, log)
    return Access(
        config=config,
        clock=clock,
        users=Users(accounts, clock),
        sessions=attendance.sessions,
        watch=attendance.watch,
        attendance=attendance,
        rates=rates_of(config),
        throttle=LoginThrottle(),
        origins=Origins(config.server.origins),
        proxies=Proxies(config.server.proxies),
    )
