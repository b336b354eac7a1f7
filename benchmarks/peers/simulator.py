"""`tradeback sim` as a child process, and what its REST knows of the trades."""

import json
import urllib.parse
import urllib.request
from collections.abc import Iterable
from typing import Any

from benchmarks.harness.announced import Announced
from benchmarks.peers.place import Place
from benchmarks.peers.plan import SEED, SYMBOLS, Run
from tradeback.sim.instrument import Instrument, catalogue

PAGE = 1_000


class SimulatorError(RuntimeError):
    """Its REST does not know what it has sent."""


def instruments() -> list[Instrument]:
    """What the market of every run lists."""
    return catalogue(SYMBOLS, False)


class Simulator(Announced):
    """A running `tradeback sim`. Use as a context manager."""

    def __init__(self, run: Run, place: Place) -> None:
        """Start it; the market begins with the first subscription. Raises CommandError."""
        super().__init__("simulator")
        arguments = [
            "--port", "0", "--announce", "--wait", "1", "--symbols", str(SYMBOLS), "--seed", str(SEED),
            "--rate", str(run.rate), "--speed", str(run.speed), "--bursts", str(run.bursts),
        ]  # fmt: skip
        if run.faults:
            script = self.folder / "faults.json"
            script.write_text(json.dumps({"seed": SEED, "faults": list(run.faults)}))
            arguments += ["--faults", str(script)]
        announced = self._start("sim", *arguments, prepare=place.take)
        self.ws_endpoint, self.rest_endpoint = announced["ws"], announced["rest"]

    def get(self, path: str, **query: Any) -> Any:
        """A GET below /api/v3/. Raises OSError."""
        address = f"{self.rest_endpoint}/api/v3/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=10.0) as answer:
            return json.loads(answer.read())

    def newest(self, path: str, key: str, symbol: str, until_ms: float) -> int:
        """Id of the newest trade (or aggregate) of a symbol up to a time; 0 when there is none."""
        page = self.get(path, symbol=symbol, limit=PAGE)
        while page and page[0][time_key(path)] > until_ms:
            first = page[0][key]
            page = self.get(path, symbol=symbol, limit=PAGE, fromId=max(0, first - PAGE))
            page = [row for row in page if row[key] < first]
        return max((row[key] for row in page if row[time_key(path)] <= until_ms), default=0)

    def merged(self, symbol: str, ids: Iterable[int]) -> int:
        """How many trades the aggregates with these ids stand for."""
        wanted, trades = set(ids), 0
        while wanted:
            page = self.get("aggTrades", symbol=symbol, fromId=min(wanted), limit=PAGE)
            if not page:
                raise SimulatorError(f"REST does not know aggregate {min(wanted)} of {symbol}")
            trades += sum(row["l"] - row["f"] + 1 for row in page if row["a"] in wanted)
            wanted -= {row["a"] for row in page}
        return trades


def time_key(path: str) -> str:
    """Where a row of this REST path has its time."""
    return "T" if path == "aggTrades" else "time"
