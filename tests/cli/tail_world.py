"""Facts as an engine would have told them, for the tests of what is shown of them."""

from typing import Any

import numpy as np

from tradeback.cli.tail_facts import Facts
from tradeback.client import Batch, BatchV1, Feed, FeedSymbol, connect
from tradeback.model.record import LATE
from tradeback.wire.v1 import make_entries
from tradeback.wire.v2_frame import ENIGMA, NO_ENIGMA, NO_GAPS, NO_QUOTES, QUOTES, TRADES, Frame
from tradeback.wire.v2_layout import FRAME_SNAPSHOT

NOW_MS = 1_795_251_284_000.0
BTC = FeedSymbol(1, "BTCUSDT", 2, 5)
OTHER = FeedSymbol(7, "币安人生USDT", 4, 1)
LINE = {"stream": "trade:0", "state": "ok", "wins": 3}


def feed_of(*symbols: FeedSymbol) -> Feed:
    """A feed that knows these and is connected to nothing."""
    made = connect("http://nowhere", reconnect=False)
    made.symbols.update({symbol.id: symbol for symbol in symbols})
    return made


def stats(seconds: float = 0.0, **more: Any) -> dict[str, Any]:
    """An answer of /api/v1/stats, so many seconds after the start: 100 messages a second."""
    count = int(100 * seconds)
    return {
        "timestamp": NOW_MS + 1e3 * seconds, "asked": NOW_MS + 1e3 * seconds, "now": NOW_MS + 1e3 * seconds,
        "started_at": NOW_MS, "version": "0.1.0", "status": "ok", "troubles": [], "waiting_for": [],
        "messages": {"trade": count}, "accepted": {"trade": count}, "duplicates": {"trade": count // 2},
        "exchange_to_engine": {"bounds_us": [10_000, 20_000], "counts": [0, count, 0], "ahead": 0},
        "inside_engine": {"bounds_us": [10, 20], "counts": [count, 0, 0]},
        "clock": {"offset_ms": 1.0, "error_ms": 0.5, "is_apart": False},
        "lines": {"a": [LINE], "b": [LINE | {"state": "down", "wins": 1}]},
        "gaps": {"open": 0, "missing": 0, "repaired": 2, "unrepairable": 0}, **more,
    }  # fmt: skip


def complete(symbol: str, through: int, newest: int) -> dict[str, Any]:
    """The part of an answer that is about one symbol."""
    told = {"symbol": symbol, "complete_through_id": through, "newest_id": newest, "from_id": 1}
    return {"symbol": told | {"complete_through": NOW_MS - 1_000}}


def batch(
    *trades: tuple[int, float, int], quote: tuple[int, float, float] | None = None,
    enigma: tuple[int, float, float, float] | None = None, snapshot: bool = False,
) -> Batch:  # fmt: skip
    """A frame that was 700 us under way: trades as (symbol, price, flags), a quote, Enigma as (symbol, level,
    ath, atl)."""
    rows = np.zeros(len(trades), TRADES)
    for row, (symbol_id, price, flags) in zip(rows, trades, strict=True):
        row["symbol_id"], row["price"], row["flags"], row["quantity"] = symbol_id, price, flags, 1.0
    quotes, levels = NO_QUOTES, NO_ENIGMA
    if quote is not None:
        quotes = np.zeros(1, QUOTES)
        quotes[0]["symbol_id"], quotes[0]["bid"], quotes[0]["ask"] = quote
    if enigma is not None:
        levels = np.zeros(1, ENIGMA)
        levels[0]["symbol_id"], levels[0]["level"], levels[0]["ath"], levels[0]["atl"] = enigma
    flags = FRAME_SNAPSHOT if snapshot else 0
    sent_us = int(NOW_MS * 1e3) - 700
    frame = Frame(1, 5, flags, len(trades) + 1, sent_us, 0, rows, quotes, NO_GAPS, levels, 0)
    return Batch(frame, int(NOW_MS * 1e6))


def old_batch(*entries: tuple[int, float, float]) -> BatchV1:
    """A frame of version 1."""
    return BatchV1(make_entries(entries), 0)


def facts(*symbols: FeedSymbol, seconds: float = 1.0) -> Facts:
    """All facts of these symbols: two answers a second apart, prices, levels."""
    made = Facts("http://127.0.0.1:8080")
    feed = feed_of(*symbols)
    for symbol in symbols:
        made.take(batch((symbol.id, 64_000.0, 0), snapshot=True), feed, NOW_MS)
        made.take(batch((symbol.id, 64_249.94, 0), (symbol.id, 1.0, LATE)), feed, NOW_MS)
        made.take(batch(quote=(symbol.id, 64_249.78, 64_249.94)), feed, NOW_MS)
        made.take(batch(enigma=(symbol.id, 61.8, 100_000.0, 10_000.0)), feed, NOW_MS)
    # One second after the other, and each answer 2 ms under way.
    for at in (0.0, seconds):
        for symbol in symbols:
            told = stats(at, **complete(symbol.symbol, 2_921_569_805, 2_921_569_805))
            made.take_stats(told, NOW_MS + 1e3 * at - 1, NOW_MS + 1e3 * at + 1)
    return made
