"""One soak from start to end: market, engine, clients, a sample every second."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import log2

from benchmarks.harness import machine
from benchmarks.harness.children import Child
from benchmarks.harness.engine import Engine, EngineError
from benchmarks.soak import clients
from benchmarks.soak.clients import Cast
from benchmarks.soak.ledger import GRACE_S
from benchmarks.soak.market import Market
from benchmarks.soak.samples import Sampler, Samples, client_values

SAMPLE_S = 1.0
SCRAPE_S, SCRAPES_MIN = 5.0, 24
"""Reading /metrics costs the engine some ms, which a p99 would show."""
HISTORY_SECONDS_MAX = 180.0
HOT_ROWS_MIN, HOT_ROWS_MAX = 8_192, 131_072
SETTLE_SECONDS_MAX = GRACE_S + 10.0
"""How long holes may take to close at the end."""
ANSWER_SECONDS_MAX = 30.0
FIRST_SYMBOL = "BTCUSDT"
"""The synthetic market's busiest one."""


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    minutes: float
    rate: float = 2_000.0
    symbols: int = 20
    seed: int = 1
    faults: int | None = None
    """Seed of the market's faults; None: nothing goes wrong."""
    workers: int = 0
    copies: int = 1
    """v2 clients that take everything."""
    scrape_s: float = 0.0
    """How often /metrics is read; 0: every SCRAPE_S, in short runs more often."""

    @property
    def seconds(self) -> float:
        """How long samples are taken."""
        return self.minutes * 60.0

    @property
    def scrape_every_s(self) -> float:
        """Seconds between two readings of /metrics."""
        return self.scrape_s or min(SCRAPE_S, max(SAMPLE_S, self.seconds / SCRAPES_MIN))

    @property
    def market(self) -> list[str]:
        """Arguments of the simulator."""
        arguments = ["--symbols", str(self.symbols), "--rate", f"{self.rate:g}", "--seed", str(self.seed)]
        if self.faults is not None:
            arguments += ["--faults", f"seed:{self.faults}:{self.seconds:.0f}s"]
        return arguments

    @property
    def load(self) -> str:
        """In words."""
        faults = f"faults of seed {self.faults}" if self.faults is not None else "no faults"
        served = f"{self.workers} feed workers" if self.workers else "the engine serves"
        return f"{self.rate:,.0f} events/s of {self.symbols} symbols on two lines, {faults}, {served}"


def hot_rows(rate: float, seconds: float) -> int:
    """Records of the tape's ring, so that it is full, and all of its memory touched, in a quarter of the
    time: as many as by default when that is long enough."""
    full = rate * seconds / 4
    return int(2 ** int(log2(min(max(full, HOT_ROWS_MIN), HOT_ROWS_MAX))))


@dataclass
class Soaked:
    """What was measured, whether to the end or not."""

    samples: Samples
    notes: list[str]
    """Faults of processes, in words."""
    early: bool = False
    """Ended by Ctrl-C."""


class Soak:
    """The running whole. `watch` is called after every sample, with the seconds passed."""

    def __init__(self, options: Options, watch: Callable[[float, Samples], None]) -> None:
        self.samples = Samples()
        self._options, self._watch = options, watch
        self.stage: Callable[[str], None] = lambda words: None

    def run(self) -> Soaked:
        """All of it; Ctrl-C ends the sampling early. Raises CommandError, ChildError."""
        with self._started() as (engine, child):
            sampler = Sampler(engine, child.pid)
            try:
                self._sample(engine, sampler, child)
                self.stage("waiting for what is missing")
                self._settle(child)
            except KeyboardInterrupt:  # which market and engine have heard, too
                return Soaked(self.samples, sampler.notes, early=True)
        return Soaked(self.samples, sampler.notes)

    @contextmanager
    def _started(self) -> Iterator[tuple[Engine, Child]]:
        options = self._options
        settings = {
            "EXCHANGE_LINES": "2",
            "FEED_WORKERS": str(options.workers),
            "TAPE_HOT_ROWS": str(hot_rows(options.rate, options.seconds)),
            "TAPE_RETENTION_BYTES": "1GiB",
        }
        self.stage("starting the market and the engine")
        with (
            Market(options.market) as market,
            Engine(market, ["*"], None, alone=False, environment=settings) as engine,
        ):
            engine.wait_ready()
            self.stage("loading history")
            engine.wait_history(HISTORY_SECONDS_MAX)
            self.stage("clients")
            address = f"http://127.0.0.1:{engine.port}"
            cast = Cast(address, FIRST_SYMBOL, options.copies, seed=options.seed)
            child = Child(machine.cores()[1], clients.serve, cast)
            try:
                yield engine, child
            finally:
                child.close()

    def _sample(self, engine: Engine, sampler: Sampler, child: Child) -> None:
        start = due = time.monotonic()
        scrape = start
        while (passed := due - start) <= self._options.seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            if engine.process.poll() is not None:
                raise EngineError(
                    f"the engine ended after {passed:.0f} s with {engine.process.returncode}:\n"
                    f"{engine.log_tail()}"
                )
            now_s = time.monotonic() - start
            values = sampler.processes(now_s)
            if due >= scrape:
                values |= sampler.metrics(now_s)
                scrape += self._options.scrape_every_s
            seen = child.ask("sample", True, timeout_s=ANSWER_SECONDS_MAX)
            self.samples.add(now_s, values | client_values(seen))
            self._watch(now_s, self.samples)
            # A look that took too long is not made up for.
            due += SAMPLE_S * max(1, round((time.monotonic() - due) / SAMPLE_S))

    def _settle(self, child: Child) -> None:
        """Let the holes close: what is open when nobody drops any more, and stays so, is lost."""
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while True:
            seen = child.ask("sample", False, timeout_s=ANSWER_SECONDS_MAX)
            waits = seen["holes"] > seen["lost"] and time.monotonic() < deadline
            if not waits:
                break
            time.sleep(SAMPLE_S)
        counted = {name: value for name, value in client_values(seen).items() if ":" not in name}
        for name, value in counted.items():
            if name in self.samples.columns:
                self.samples.columns[name][-1] = value
