"""The components of the log, and which of them is logged from which level on. Stdlib only."""

from collections.abc import Iterable, Mapping
from typing import Final

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}

COMPONENTS: Final = {
    "api": "answers over HTTP: what could not be answered, and why",
    "backfill": "klines that are fetched on demand",
    "bus": "NATS: its connection, readers, requests",
    "clock": "this machine's clock against the exchange's",
    "engine": "start, what was restored, the tape's refusals, the stop",
    "feed": "the WebSocket feed and its port",
    "gaps": "gaps: opened, repaired, given up",
    "history": "bars from before the tape",
    "http": "aiohttp's server",
    "hub": "an edge's way to its hub",
    "latest": "sessions and market watches shared through Redis",
    "library": "everything else: asyncio and other packages",
    "line": "connections to the exchange",
    "record": "`tradeback record`",
    "recorder": "the process that writes bars",
    "repair": "missing trades that are fetched by REST",
    "series": "the store of bars and levels",
    "sinks": "InfluxDB, Redis, MySQL and NATS behind the tape",
    "supervisor": "the processes of a run",
    "symbols": "symbols that market watches add",
    "watchdog": "streams that stall",
    "worker": "the processes that serve WebSocket clients",
}
"""Every component that logs, and what about."""

ALL: Final = "all"
"""Stands for every component that has no level of its own."""

LIBRARY: Final = "library"
LIBRARY_LEVEL: Final = "warning"
"""Logged from `warning` on unless it is named itself: what packages tell below that is for their makers."""

LOGGERS: Final = {
    "tradeback.api": "api",
    "tradeback.api.bus": "bus",
    "tradeback.bus": "bus",
    "tradeback.client": "feed",
    "tradeback.feed": "feed",
    "tradeback.http": "http",
    "tradeback.sinks": "sinks",
    "tradeback.sinks.series": "series",
}
"""Loggers of the standard library in this package -> their component."""


def component_of(logger: str) -> str:
    """The component of a logger of the standard library: by its longest known beginning, else `library`."""
    while logger:
        if logger in LOGGERS:
            return LOGGERS[logger]
        logger = logger.rpartition(".")[0]
    return LIBRARY


def check_component(name: str) -> str:
    """The name as it is known. ValueError that lists the known ones."""
    found = name.strip().lower()
    if found != ALL and found not in COMPONENTS:
        raise ValueError(f"there is no component {name!r}; known are {ALL}, {', '.join(sorted(COMPONENTS))}")
    return found


def check_level(text: str) -> str:
    """The level in lower case. ValueError that lists the known ones."""
    found = text.strip().lower()
    if found not in LEVELS:
        raise ValueError(f"there is no level {text!r}; use one of {', '.join(LEVELS)}")
    return found


def parse_pair(text: str) -> tuple[str, str]:
    """`line=debug` -> (component, level). ValueError with the remedy."""
    component, equals, level = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r}: write COMPONENT=LEVEL, like line=debug")
    return check_component(component), check_level(level)


class Thresholds:
    """From which level on each component is logged. What was set at run time goes before configuration."""

    def __init__(self) -> None:
        self._base = "info"
        self._configured: dict[str, str] = {}
        self._run_time: dict[str, str] = {}
        self.ranks: dict[str, int] = {}
        """Of every component, as a number of LEVELS."""
        self.other = LEVELS[self._base]
        """Of names that are no component."""
        self._settle()

    def configure(self, base: str, own: Iterable[str]) -> None:
        """`own`: pairs like `line=debug`. Raises ValueError."""
        self._base = check_level(base)
        self._configured = dict(parse_pair(pair) for pair in own)
        self._settle()

    def set_run_time(self, levels: Mapping[str, str]) -> None:
        """All that was set at run time, by component or ALL."""
        self._run_time = dict(levels)
        self._settle()

    def level(self, component: str) -> tuple[str, str]:
        """The level of a component or of ALL, and where it comes from: run time, configuration, default."""
        named = component in self._run_time or component in self._configured
        found, where = self._asked(component)
        if component == LIBRARY and not named and LEVELS[found] < LEVELS[LIBRARY_LEVEL]:
            return LIBRARY_LEVEL, "default"
        return found, where

    def _asked(self, component: str) -> tuple[str, str]:
        for levels, where in ((self._run_time, "run time"), (self._configured, "configuration")):
            for name in (component, ALL):
                if name in levels:
                    return levels[name], where
        return self._base, "configuration"

    def _settle(self) -> None:
        self.ranks = {name: LEVELS[self.level(name)[0]] for name in COMPONENTS}
        self.other = LEVELS[self.level(ALL)[0]]
