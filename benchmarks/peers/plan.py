"""Who is compared, and in which three runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

SYMBOLS: Final = 10
SEED: Final = 7


@dataclass(frozen=True)
class Peer:
    """One row of the table."""

    key: str
    title: str
    module: str
    """The script, run as `python -m`."""
    library: str = ""
    """For a script that offers a choice."""
    takes: str = "trade"
    """trade or aggTrade: what its trades are."""
    engine: bool = False
    """Whether it needs a tradeback engine, and tradeback's own environment."""
    notes: tuple[str, ...] = ()
    """Footnotes: how it is configured, and what its figures mean."""
    cut_notes: tuple[str, ...] = ()
    """Footnotes of the cut: how it comes back."""


PEERS: Final = (
    Peer(
        "base",
        "websockets + orjson, by hand",
        "benchmarks.peers.base",
        notes=("The base of comparison: `async for` over `connect`, asyncio's own loop, no compression.",),
    ),
    Peer(
        "cryptofeed",
        "cryptofeed",
        "benchmarks.peers.cryptofeed",
        takes="aggTrade",
        notes=(
            "Takes aggTrades instead of trades, so there are fewer events; ids lost are translated into the "
            "trades they stood for. On uvloop, as its own default. Its read queue has no bound: look at the "
            "peak of the flood. It accepts `wss://` only; what opens its socket was wrapped.",
        ),
        cut_notes=("comes back after 1 s, then doubled; writes it to its log.",),
    ),
    Peer(
        "ccxt",
        "ccxt.pro",
        "benchmarks.peers.ccxt",
        notes=(
            "Shows the user only the newest quote of a symbol. All that it decoded count as events, "
            "seen or not.",
        ),
        cut_notes=("raises into the loops of the user, who has to call again.",),
    ),
    Peer(
        "python-binance",
        "python-binance",
        "benchmarks.peers.python_binance",
        notes=("Queue of 1,000,000 messages instead of 100: the default overflows in bulk.",),
        cut_notes=("comes back after 1 to 2 s by chance; ends for good after five failures in a row.",),
    ),
    Peer(
        "unicorn",
        "unicorn (default)",
        "benchmarks.peers.unicorn",
        notes=("unicorn-binance-websocket-api, its callback for one stream, output as dict.",),
        cut_notes=("comes back within its default `restart_timeout`, 6 s; the signal is to be asked for.",),
    ),
    Peer(
        "unicorn-picows",
        "unicorn, picows",
        "benchmarks.peers.unicorn",
        library="picows",
        notes=('`websocket_library="picows"`, its fastest choice.',),
    ),
    Peer(
        "tradeback",
        "tradeback: engine and client",
        "benchmarks.peers.tradeback",
        engine=True,
        notes=(
            "`tradeback run` as it comes (two lines, tape on disk, bars, levels, recorder; three processes) "
            "and the Python client, all on the one core that every other peer has alone. The engine reads "
            "every stream twice and aggTrades besides; only what the client is handed counts. The client "
            "hands out batches of numpy arrays, the others call back for each event: a Python loop over "
            "the single events of a batch costs what it costs there. It was flooded until it "
            "had its compiled decoder, after 2,000 frames; the window began then.",
        ),
    ),
)


@dataclass(frozen=True)
class Run:
    """One run of a peer against a simulator of its own; the market is the same for every peer."""

    key: str
    title: str
    rate: int
    """Mean events/s of the whole market, aggTrades included."""
    speed: int
    bursts: int
    warm_s: float
    seconds: float
    count_only: bool = False
    real_time: bool = False
    """Whether to run it before all other work: only where little CPU is used."""
    reference: bool = False
    """Whether a second reader notes when each frame was sent."""
    faults: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)

    def scaled(self, factor: float) -> "Run":
        """The same, shorter: to see whether all works. What goes wrong goes wrong sooner."""
        faults = tuple({**fault, "at": f"{float(fault['at'][:-1]) * factor:g}s"} for fault in self.faults)
        return replace(self, warm_s=self.warm_s * factor, seconds=self.seconds * factor, faults=faults)


CUT_AT_S: Final = 4.0
FLOOD: Final = Run("flood", "as fast as it takes it", 150_000, 0, 0, 2.0, 4.0, count_only=True)
CALM: Final = Run("calm", "2,000 events/s, clustered", 2_000, 1, 1, 1.5, 8.0, real_time=True, reference=True)
CUT: Final = Run(
    "cut", "all lines cut", 2_000, 1, 0, 0.0, 14.0, real_time=True,
    faults=({"kind": "cut", "at": f"{CUT_AT_S:g}s", "connections": "all", "how": "reset"},),
)  # fmt: skip
RUNS: Final = (FLOOD, CALM, CUT)
