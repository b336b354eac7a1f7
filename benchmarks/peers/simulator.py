"""`tradeback sim` as a child process, and what its REST knows of the trades."""

import json
import select
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.harness.engine import command
from benchmarks.peers.place import Place
from benchmarks.peers.plan import SEED, SYMBOLS, Run
from tradeback.sim.instrument import Instrument, catalogue

START_S_MAX = 30.0
STOP_S_MAX = 5.0
PAGE = 1_000


class SimulatorError(RuntimeError):
    """The simulator did not start, or ended."""


def instruments() -> list[Instrument]:
    """What the market of every run lists."""
    return catalogue(SYMBOLS, False)


class Simulator:
    """A running `tradeback sim`. Use as a context manager."""

    def __init__(self, run: Run, place: Place) -> None:
        """Start it; the market begins with the first subscription. Raises SimulatorError."""
        self._folder = tempfile.TemporaryDirectory(prefix="tradeback-peers-sim-")
        folder = Path(self._folder.name)
        arguments = [
            "--port", "0", "--announce", "--wait", "1", "--symbols", str(SYMBOLS), "--seed", str(SEED),
            "--rate", str(run.rate), "--speed", str(run.speed), "--bursts", str(run.bursts),
        ]  # fmt: skip
        if run.faults:
            script = folder / "faults.json"
            script.write_text(json.dumps({"seed": SEED, "faults": list(run.faults)}))
            arguments += ["--faults", str(script)]
        self._log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [*command(), "sim", *arguments], stdout=subprocess.PIPE, stderr=self._log, text=True,
            preexec_fn=place.take,
        )  # fmt: skip
        try:
            announced = json.loads(self._announced())
        except BaseException:
            self.close()
            raise
        self.ws_endpoint: str = announced["ws"]
        self.rest_endpoint: str = announced["rest"]

    def _announced(self) -> str:
        out = self.process.stdout
        assert out is not None
        deadline = time.monotonic() + START_S_MAX
        while (left := deadline - time.monotonic()) > 0:
            if select.select([out], [], [], left)[0]:
                line = out.readline()
                if line.startswith("{"):
                    return line
                if not line:
                    break
        self._log.seek(0)
        raise SimulatorError(f"the simulator did not start: {self._log.read()[-500:]}")

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

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()
        self._folder.cleanup()

    def __enter__(self) -> "Simulator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def time_key(path: str) -> str:
    """Where a row of this REST path has its time."""
    return "T" if path == "aggTrades" else "time"
