"""Bars of one symbol: the made-up past, the live trades, and every interval put together from both. Pure."""

from collections.abc import Iterator
from datetime import UTC, datetime

from tradeback.sim.bars import LEVELS, Bar, merge
from tradeback.sim.history import History

INTERVALS = {
    "1s": 1, "1m": 60, "3m": 180, "5m": 300, "15m": 900, "30m": 1_800, "1h": 3_600, "2h": 7_200,
    "4h": 14_400, "6h": 21_600, "8h": 28_800, "12h": 43_200, "1d": 86_400, "3d": 259_200, "1w": 604_800,
    "1M": 0,
}  # fmt: skip
"""Interval name -> seconds; 0 stands for the calendar month. Case matters."""
WEEK_START_S = 4 * 86_400
"""The first Monday after 1970-01-01, a Thursday."""
KEPT_BARS = {1: 7_200, 60: 10_080, 900: 20_000, 3_600: 20_000, 86_400: 4_000}
"""Live bars kept per level and symbol: two hours of seconds, a week of minutes."""


def month_start(second: int, months: int = 0) -> int:
    """Start (seconds since 1970, UTC) of the month that holds `second`, `months` later."""
    moment = datetime.fromtimestamp(second, UTC)
    index = moment.year * 12 + moment.month - 1 + months
    return int(datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC).timestamp())


def bucket_start(interval: str, second: int, offset_s: int = 0) -> int:
    """Start of the bar of `interval` that holds `second`; `offset_s` is the time zone of day bounds."""
    size = INTERVALS[interval]
    local = second + offset_s
    if not size:
        return month_start(local) - offset_s
    if interval == "1w":
        return (local - WEEK_START_S) // size * size + WEEK_START_S - offset_s
    return local // size * size - offset_s


def bucket_end(interval: str, start_s: int, offset_s: int = 0) -> int:
    """Start of the bar after the one that starts at `start_s`."""
    size = INTERVALS[interval]
    return start_s + size if size else month_start(start_s + offset_s, 1) - offset_s


class Chart:
    """All bars of one symbol. Trades are added in the order of their match times."""

    def __init__(self) -> None:
        self.history: History | None = None
        self._second = -1
        self._open = self._high = self._low = self._close = 0
        self._volume = self._quote = self._count = self._taker = self._taker_quote = self._first_id = 0
        self._live: dict[int, dict[int, Bar]] = {level: {} for level in LEVELS}
        self.last_price = 0

    def add(
        self, time_us: int, price: int, quantity: int, maker: bool, first_id: int, trades: int = 1
    ) -> None:
        """Count trades at one price and time; `quantity` is their sum, `maker` that buyers were makers."""
        second = time_us // 1_000_000
        if second != self._second:
            self._roll()
            self._second = second
            self._open = self._high = self._low = price
            self._volume = self._quote = self._count = self._taker = self._taker_quote = 0
            self._first_id = first_id
        elif price > self._high:
            self._high = price
        elif price < self._low:
            self._low = price
        self._close = self.last_price = price
        quote = price * quantity
        self._volume += quantity
        self._quote += quote
        self._count += trades
        if not maker:
            self._taker += quantity
            self._taker_quote += quote

    def _current(self) -> Bar | None:
        if not self._count:
            return None
        return Bar(
            self._open, self._high, self._low, self._close, self._volume, self._quote, self._count,
            self._taker, self._taker_quote, self._first_id,
        )  # fmt: skip

    def _roll(self) -> None:
        """File the second that has ended under every level."""
        bar = self._current()
        if bar is None:
            return
        for level, bars in self._live.items():
            start_s = self._second - self._second % level
            merged = merge(bars.get(start_s), bar)
            if merged is not None:
                bars[start_s] = merged
            if len(bars) > KEPT_BARS[level]:
                del bars[next(iter(bars))]
        self._count = 0

    def base(self, level: int, start_s: int) -> Bar | None:
        """The bar of one of LEVELS, past and live together."""
        bar = self._live[level].get(start_s)
        if self._count and start_s <= self._second < start_s + level:
            bar = merge(bar, self._current())
        if self.history is not None and start_s < self.history.end_s:
            bar = merge(self.history.bar(level, start_s), bar)
        return bar

    def window(self, start_s: int, end_s: int) -> Bar | None:
        """One bar over [start_s, end_s), from as few base bars as possible."""
        bar: Bar | None = None
        at = start_s
        while at < end_s:
            for level in LEVELS:
                if at % level == 0 and at + level <= end_s:
                    bar = merge(bar, self.base(level, at))
                    at += level
                    break
        return bar

    @property
    def first_s(self) -> int | None:
        """The second of the oldest bar there is; None before the first trade."""
        if self.history is not None:
            return self.history.first_s
        days = self._live[86_400]
        if days:
            return next(iter(self._live[1]), next(iter(days)))
        return self._second if self._count else None

    def close_before(self, second: int) -> int:
        """Price of the last trade before `second`; 0 if there was none within a week."""
        for span in (60, 3_600, 86_400, 604_800):
            bar = self.window(second - span, second)
            if bar is not None:
                return bar.close
        return 0

    def rows(
        self, interval: str, start_s: int, end_s: int, offset_s: int = 0
    ) -> Iterator[tuple[int, int, Bar]]:
        """(start, end, bar) of every span of `interval` in [start_s, end_s), oldest first.

        Spans without trades are flat at the last price; spans before the first known price are left out.
        """
        at, close = bucket_start(interval, start_s, offset_s), 0
        while at < end_s:
            until = bucket_end(interval, at, offset_s)
            bar = self.window(at, until)
            if bar is None:
                close = close or self.close_before(at)
                if close:
                    bar = Bar(close, close, close, close, 0, 0, 0, 0, 0, -1)
            if bar is not None:
                close = bar.close
                yield at, until, bar
            at = until
