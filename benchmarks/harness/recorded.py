"""The recorded streams as tape rows and as the JSON that brought them, cut into batches by receive time."""

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from tradeback.model.record import BUYER_MAKER, QUOTE, TRADE, Rows, empty_rows
from tradeback.model.symbols import Symbol

SYMBOLS = (
    Symbol(1, "BTCUSDT", tick_size="0.01", step_size="0.00001"),
    Symbol(2, "ETHUSDT", tick_size="0.01", step_size="0.0001"),
)
FILES = ("btcusdt_20240808", "btcusdt_20240809_part1", "ethusdt_20240808", "ethusdt_20240809_part1")


@dataclass(frozen=True)
class Recorded:
    """Trades and quotes in the order in which they were received: `rows[k]` came as `texts[k]`."""

    rows: Rows
    texts: list[bytes]

    def batches(self, window_ms: int) -> list[tuple[int, int]]:
        """[start, end) of what was received within the same window."""
        windows: NDArray[np.int64] = self.rows["recv_ns"] // (window_ms * 1_000_000)
        starts = [0, *(np.flatnonzero(np.diff(windows)) + 1).tolist()]
        return list(zip(starts, [*starts[1:], len(windows)], strict=True))


def folder() -> Path:
    """The recordings: below TRADEBACK_SHARED, or `../shared` beside the checkout."""
    shared = os.environ.get("TRADEBACK_SHARED") or Path(__file__).parents[3] / "shared"
    return Path(shared) / "data" / "binance" / "spot_ws"


def load(limit: int | None = None) -> Recorded:
    """BTCUSDT and ETHUSDT of 2024-08-08 and 09, merged; of each file the first `limit` lines."""
    found: list[tuple[int, bytes]] = []
    for name in FILES:
        with gzip.open(folder() / f"{name}.gz") as lines:
            for place, line in enumerate(lines):
                if place == limit:
                    break
                stamp, _, text = line.rstrip().partition(b" ")
                if b'@trade"' in text[:40] or b'@bookTicker"' in text[:40]:
                    found.append((int(stamp), text))
    found.sort(key=lambda event: event[0])
    rows = empty_rows(len(found))
    ids = {symbol.symbol: symbol.id for symbol in SYMBOLS}
    for row, (recv_ns, text) in zip(rows, found, strict=True):
        data = orjson.loads(text)["data"]
        row["recv_ns"], row["symbol_id"] = recv_ns, ids[data["s"]]
        if data.get("e") == "trade":
            row["kind"], row["id"], row["exchange_us"] = TRADE, data["t"], 1_000 * data["T"]
            row["price"], row["quantity"] = float(data["p"]), float(data["q"])
            row["flags"] = BUYER_MAKER * data["m"]
        else:
            row["kind"], row["id"] = QUOTE, data["u"]
            row["price"], row["quantity"] = float(data["b"]), float(data["B"])
            row["ask"], row["ask_quantity"] = float(data["a"]), float(data["A"])
    return Recorded(rows, [text for _, text in found])
