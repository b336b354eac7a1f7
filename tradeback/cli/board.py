"""What the demo shows: numbers per symbol, gathered from the feed, and how they look."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tradeback.client import Batch, BatchV1, Control, Event, Feed, FeedSymbol
from tradeback.client.scrape import Buckets, histogram, quantile, since

if TYPE_CHECKING:
    from rich.console import RenderableType

HOPS = {
    "exchange to receive": "tradeback_receive_latency_seconds",
    "receive to publish": "tradeback_publish_latency_seconds",
}
"""Histograms of /metrics that are shown."""

RATE_MEMORY = 0.6
"""Share of the older rate that stays in the shown one, per refresh."""


@dataclass(slots=True)
class Row:
    """One symbol's latest numbers."""

    symbol: FeedSymbol
    price: float = 0.0
    direction: int = 0
    """1 when the last change of price was upwards, -1 downwards."""
    trades: int = 0
    rate: float = 0.0
    level: float | None = None
    _counted: int = 0

    def take(self, price: float, volume: float) -> None:
        """One entry of the feed. Volume 0 is the snapshot, not a trade."""
        if self.price and price != self.price:
            self.direction = 1 if price > self.price else -1
        self.price = price
        self.trades += volume > 0

    def refresh(self, seconds: float) -> None:
        """Bring the rate up to date after `seconds`."""
        now = (self.trades - self._counted) / seconds
        self.rate = now if not self.rate else RATE_MEMORY * self.rate + (1 - RATE_MEMORY) * now
        self._counted = self.trades


@dataclass(slots=True)
class Board:
    """All rows and the latencies of the last interval."""

    rows: dict[int, Row] = field(default_factory=dict)
    latencies: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    """Hop -> (p50, p99) in seconds, None when nothing passed."""
    _buckets: dict[str, Buckets] = field(default_factory=dict)
    _by_name: dict[str, Row] = field(default_factory=dict)

    @property
    def trades(self) -> int:
        """Trades seen so far."""
        return sum(row.trades for row in self.rows.values())

    @property
    def rate(self) -> float:
        """Trades per second, all symbols together."""
        return sum(row.rate for row in self.rows.values())

    def take(self, event: Event, feed: Feed) -> None:
        """One event of the feed."""
        if isinstance(event, Batch | BatchV1):
            for symbol_id, price, volume in event.entries.tolist():
                self._row(feed.symbol(symbol_id)).take(price, volume)
        if isinstance(event, Batch):
            for found in event.enigma:
                self._row(feed.symbol(int(found["symbol_id"]))).level = float(found["level"])
        if not isinstance(event, Control):
            return
        if event.type == "subscribed":
            for symbol in feed.symbols.values():
                self._row(symbol)
        elif event.type == "enigma":
            data = event.message["data"]
            if data["symbol"] in self._by_name:
                self._by_name[data["symbol"]].level = data["level"]

    def _row(self, symbol: FeedSymbol) -> Row:
        row = self.rows.get(symbol.id)
        if row is None:
            row = self.rows[symbol.id] = self._by_name[symbol.symbol] = Row(symbol)
        return row

    def take_metrics(self, text: str) -> None:
        """A reading of /metrics: latencies of what passed since the reading before."""
        for hop, name in HOPS.items():
            now = histogram(text, name)
            passed = since(self._buckets.get(hop, {}), now)
            p50, p99 = quantile(passed, 0.5), quantile(passed, 0.99)
            self.latencies[hop] = None if p50 is None or p99 is None else (p50, p99)
            self._buckets[hop] = now

    def refresh(self, seconds: float) -> None:
        """Bring all rates up to date."""
        for row in self.rows.values():
            row.refresh(seconds)

    def shown(self, rows_max: int) -> list[Row]:
        """The busiest symbols, in a stable order."""
        busiest = sorted(self.rows.values(), key=lambda row: -row.trades)[:rows_max]
        return sorted(busiest, key=lambda row: row.symbol.id)


def summary(board: Board) -> str:
    """The board in one line, for whoever does not look at a terminal."""
    words = [f"{len(board.rows)} symbols", f"{board.rate:,.0f} trades/s"]
    words += [f"{hop} {_latency(board.latencies.get(hop))}" for hop in HOPS]
    for row in board.shown(1):
        level = "" if row.level is None else f" enigma {row.level:.2f}"
        words.append(f"{row.symbol.symbol} {row.price:.{row.symbol.price_precision}f}{level}")
    return "   ".join(words)


def table(board: Board, rows_max: int) -> "RenderableType":
    """The board as a table with at most `rows_max` symbols."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = board.shown(rows_max)
    hidden = len(board.rows) - len(shown)
    above = "   ".join(f"{hop}: {_latency(board.latencies.get(hop))}" for hop in HOPS)
    below = f"{board.rate:,.0f} trades/s, {board.trades:,} so far"
    if hidden > 0:
        below += f", {hidden} quieter symbols not shown"
    drawn = Table()
    drawn.add_column("symbol")
    for title in ("price", "trades/s", "trades", "Enigma"):
        drawn.add_column(title, justify="right")
    for row in shown:
        colour = {1: "green", -1: "red"}.get(row.direction, "")
        price = Text(f"{row.price:,.{row.symbol.price_precision}f}" if row.price else "", style=colour)
        level = "" if row.level is None else f"{row.level:.2f}"
        drawn.add_row(row.symbol.symbol, price, f"{row.rate:,.1f}", f"{row.trades:,}", level)
    return Group(Text(above), drawn, Text(below))


def _latency(pair: tuple[float, float] | None) -> str:
    if pair is None:
        return "-"
    return " ".join(f"{name} {_short(value)}" for name, value in zip(("p50", "p99"), pair, strict=True))


def _short(seconds: float) -> str:
    """A bucket's bound, readable: at most that much."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:g} ms" if seconds < 1 else f"{seconds:g} s"


def greeting(url: str, symbols: Iterable[FeedSymbol], command: str, default_url: str) -> str:
    """What can be opened now. `command` is how the user starts tradeback."""
    names = [symbol.symbol for symbol in symbols]
    name = "BTCUSDT" if "BTCUSDT" in names else names[0]
    at = "" if url == default_url else f" --url {url}"
    feed = url.replace("http", "ws", 1) + "/api/v1/ws"
    api = f"{url}/api/v1"
    subscribe = f'{{"type":"subscribe","symbols":["{name}"]}}'
    node = (
        f'w=new WebSocket("{feed}");w.binaryType="arraybuffer";'
        f"w.onopen=()=>w.send(JSON.stringify({subscribe}));"
        'w.onmessage=({data:d})=>{if(typeof d=="string")return console.log(d);const v=new DataView(d);'
        "for(let i=6;i<v.byteLength;i+=18)"
        "console.log(v.getUint16(i,true),v.getFloat64(i+2,true),v.getFloat64(i+10,true))}"
    )
    return f"""
  page      {url}/        prices, candles, levels, gaps: open it in a browser

  price     {api}/symbols/{name}/price
  bars      {api}/symbols/{name}/bars?resolution=1s
  enigma    {api}/symbols/{name}/enigma
  health    {api}/health/detailed
  metrics   {url}/metrics

  In a second terminal:
  trades    {command} tail {name}{at}
  python    python -m websockets {feed}
            then type {subscribe}
  node 22   node -e '{node}'

  Ctrl-C ends simulator and engine.
"""
