"""What really happened: every frame the market made, and which of them left on which connection, when."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from tradeback.sim.book import Book
from tradeback.sim.channels import Hub, Listener
from tradeback.sim.fault_frames import payload_of
from tradeback.sim.fault_play import Act, FaultPlay
from tradeback.sim.faults import Fault
from tradeback.sim.market import Synthetic

STREAMS = ("trade", "aggTrade", "bookTicker")
TRUTH_KEY = -1
"""The number under which the truth listens; connections count from 1."""


class Trade(NamedTuple):
    """One trade as the exchange wrote it."""

    id: int
    price: str
    quantity: str
    time_us: int
    maker: bool


class Agg(NamedTuple):
    """One aggregate as the exchange wrote it."""

    id: int
    price: str
    quantity: str
    first: int
    last: int
    time_us: int
    maker: bool


class Quote(NamedTuple):
    """One change of the touch as the exchange wrote it."""

    id: int
    bid: str
    bid_quantity: str
    ask: str
    ask_quantity: str


@dataclass
class Told:
    """Everything of one symbol, by id."""

    trades: dict[int, Trade] = field(default_factory=dict)
    aggs: dict[int, Agg] = field(default_factory=dict)
    quotes: dict[int, Quote] = field(default_factory=dict)


class Truth:
    """Listens beside the connections; nothing is lost on the way here."""

    def __init__(self, hub: Hub, books: Iterable[Book]) -> None:
        self._frames: list[bytes] = []
        listener = Listener(self._frames.append, combined=True, microseconds=True)
        self.streams = 0
        for book in books:
            for kind in STREAMS:
                hub.subscribe(f"{book.instrument.stream}@{kind}", TRUTH_KEY, listener)
                self.streams += 1

    def told(self) -> tuple[dict[str, Told], dict[bytes, tuple[str, str, int]]]:
        """(what happened by symbol, the frame of each event -> stream kind, symbol, id)."""
        found: dict[str, Told] = defaultdict(Told)
        frames: dict[bytes, tuple[str, str, int]] = {}
        for data in self._frames:
            message = json.loads(payload_of(data))
            event, kind = message["data"], message["stream"].partition("@")[2]
            name = event["s"]
            held = found[name]
            if kind == "trade":
                trade = Trade(event["t"], event["p"], event["q"], event["T"], event["m"])
                held.trades[trade.id] = trade
                frames[data] = (kind, name, trade.id)
            elif kind == "aggTrade":
                agg = Agg(event["a"], event["p"], event["q"], event["f"], event["l"], event["T"], event["m"])
                held.aggs[agg.id] = agg
                frames[data] = (kind, name, agg.id)
            else:
                quote = Quote(event["u"], event["b"], event["B"], event["a"], event["A"])
                held.quotes[quote.id] = quote
                frames[data] = (kind, name, quote.id)
        return dict(found), frames


class Sent(NamedTuple):
    """One write: when, on which connection, which complete frames."""

    at_s: float
    number: int
    frames: list[bytes]


class Witness(FaultPlay):
    """A fault script that remembers what left the exchange."""

    def __init__(self, faults: Sequence[Fault], seed: int, symbols: Sequence[str]) -> None:
        super().__init__(faults, seed, symbols)
        self.sent: list[Sent] = []
        self.ends: dict[int, float] = {}
        """When a connection ended, or nothing on it could be understood any more."""

    def on_frames(self, number: int, frames: list[bytes]) -> list[bytes]:
        out = super().on_frames(number, frames)
        if out:
            self.sent.append(Sent(self.now_s, number, list(out)))
        return out

    def on_time(self, now_s: float) -> list[Act]:
        acts = super().on_time(now_s)
        for act in acts:
            if act.doing not in ("announce", "clock"):
                self.ends.setdefault(act.connection, now_s)
        return acts

    def closed(self, number: int) -> None:
        super().closed(number)
        self.ends.setdefault(number, self.now_s)


class Ending:
    """A synthetic market that falls silent `span_s` after it began."""

    def __init__(self, market: Synthetic, span_s: float) -> None:
        self._market, self._span_us = market, int(span_s * 1e6)
        self._end_us: int | None = None
        self.silence_max_us: int | None = None
        self.attach, self.owns, self.begin = market.attach, market.owns, market.begin

    @property
    def books(self) -> dict[str, Book]:
        return self._market.books

    def skip_to(self, market_us: int) -> None:
        self._market.skip_to(market_us)
        if self._end_us is None:
            self._end_us = market_us + self._span_us

    def next_us(self) -> int | None:
        due = self._market.next_us()
        return None if due is None or (self._end_us is not None and due > self._end_us) else due

    def advance(self, until_us: int, frames_max: int) -> int:
        return self._market.advance(min(until_us, self._end_us or until_us), frames_max)


def total(texts: Iterable[str]) -> Decimal:
    """The exact sum of decimals."""
    return sum(map(Decimal, texts), Decimal())
