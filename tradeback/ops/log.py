"""The log: JSON lines on stderr, or coloured lines when a person looks at a terminal.

    {"timestamp": ..., "level": "warning", "component": "line", "process": "engine", "event": ..., ...}

structlog costs 70 ms to import and a line 15 us, so nothing per tick is ever logged. What repeats is held
back and counted (`ops.repeats`), secrets are masked and control characters escaped (`ops.log_text`), levels
are per component and change at run time (`ops.components`, `ops.level_file`). What other packages log by
the standard library gets the same shape.
"""

import atexit
import logging
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from tradeback.model.config import Config
from tradeback.ops.components import LEVELS, Thresholds
from tradeback.ops.level_file import LevelFile, LevelWatch
from tradeback.ops.log_text import MASK, SECRET_WORDS

if TYPE_CHECKING:
    from tradeback.ops.log_output import Delivery

__all__ = ["LEVELS", "MASK", "SECRET_WORDS", "Log", "RepeatLimiter", "configure", "get_log"]

REPEAT_KEYS_MAX = 1_024
"""Keys a limiter remembers; beyond it the oldest is forgotten, which costs at most one extra line."""

thresholds = Thresholds()
"""Of this process."""
_delivery: "Delivery | None" = None
_level_watch: LevelWatch | None = None


class Log(Protocol):
    """The part of a structlog logger that is used here; fields are given by name."""

    def debug(self, event: str, **fields: Any) -> Any:
        """For whoever looks for a fault."""

    def info(self, event: str, **fields: Any) -> Any:
        """Something that an operator expects."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Something that mends itself, or that somebody should look at."""

    def error(self, event: str, **fields: Any) -> Any:
        """Something that does not mend itself."""

    def bind(self, **fields: Any) -> "Log":
        """A log that adds these fields to every line."""


def configure(
    level: str,
    stream: TextIO | None = None,
    *,
    console: bool | None = None,
    own: Iterable[str] = (),
    process: str = "",
    secrets: Iterable[str] = (),
) -> None:
    """Set up the log of this process. `console` None: coloured lines if `stream` (stderr) is a terminal.

    `own`: levels of single components, like `line=debug`; `process`: stands in every line; `secrets`: texts
    that are masked wherever they occur. Raises ValueError for a level or component that does not exist.
    """
    import structlog

    from tradeback.ops.log_chain import Chain, logger_class, put_bridge, set_loggers, to_json, to_terminal
    from tradeback.ops.log_output import Delivery, Output
    from tradeback.ops.log_text import Cleaner

    global _delivery
    finish()
    target = stream if stream is not None else sys.stderr
    readable = console if console is not None else target.isatty()
    thresholds.configure(level, own)
    render = to_terminal(colours=target.isatty()) if readable else to_json
    _delivery = Delivery(Output(target), render)
    chain = Chain(_delivery, Cleaner(secrets), _local_time if readable else _utc_time, process)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, chain.structlog],
        wrapper_class=logger_class(thresholds),
        logger_factory=structlog.PrintLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
    set_loggers(thresholds)
    put_bridge(chain)


def begin(config: Config, process: str, *, console: bool | None = None) -> None:
    """`configure` as the configuration says, and as `tradeback log-level` has said before this start."""
    configure(
        config.log_level, console=console, own=config.log_levels, process=process, secrets=secrets_of(config)
    )
    global _level_watch
    logging.captureWarnings(capture=True)
    _level_watch = _watch(config)
    _level_watch.look()


def follow_levels() -> None:
    """Take levels up that are changed from now on, as long as the running loop runs. After `begin`."""
    if _level_watch is not None:
        _level_watch.start()


def finish() -> None:
    """Show what is held back, as before an end."""
    if _delivery is not None:
        _delivery.finish()


atexit.register(finish)


def delivered() -> "Delivery | None":
    """Where the lines of this process go, with their counts; None before `configure`."""
    return _delivery


def secrets_of(config: Config) -> list[str]:
    """Passwords and tokens of a configuration, also those inside of addresses."""
    found = [config.mysql.password, config.influx.token, config.redis.password]
    found += [config.influx.token.partition(":")[2]]
    for address in config.nats.url.split(","):
        account = address.rpartition("@")[0].rpartition("/")[2]
        user, colon, password = account.partition(":")
        found.append(password if colon else user)  # one word is a token
    return [secret for secret in found if secret]


def get_log(component: str) -> Log:
    """The log of one of `ops.components.COMPONENTS`. Call after `configure`: bound at once."""
    import structlog

    bound: Log = structlog.get_logger().bind(component=component.partition(":")[0])
    return bound


def _watch(config: Config) -> LevelWatch:
    from tradeback.ops.log_chain import set_loggers

    log = get_log("engine")

    def change(levels: dict[str, str]) -> None:
        thresholds.set_run_time(levels)
        set_loggers(thresholds)
        log.info("log levels set at run time", levels=levels)

    def fault(words: str) -> None:
        log.warning("the log levels of run time cannot be used", reason=words)

    return LevelWatch(LevelFile(config.data_dir), change, fault)


def _utc_time(created_s: float | None) -> str:
    now_s = time.time() if created_s is None else created_s
    whole, part = divmod(int(now_s * 1e6), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{part:06d}Z"


def _local_time(created_s: float | None) -> str:
    now_s = time.time() if created_s is None else created_s
    whole, part = divmod(int(now_s * 1e6), 1_000_000)
    return f"{time.strftime('%H:%M:%S', time.localtime(whole))}.{part:06d}"


class RepeatLimiter:
    """At most one line per key and interval, with the number that was held back in between."""

    def __init__(self, interval_s: float = 5.0) -> None:
        self._interval_ns = int(interval_s * 1e9)
        self._keys: dict[str, list[int]] = {}

    def allow(self, key: str, steady_ns: int) -> int | None:
        """Whether to log now: None for no, else how many lines of this key were held back before."""
        held = self._keys.get(key)
        if held is None:
            if len(self._keys) >= REPEAT_KEYS_MAX:
                del self._keys[next(iter(self._keys))]
            self._keys[key] = [steady_ns, 0]
            return 0
        if steady_ns - held[0] < self._interval_ns:
            held[1] += 1
            return None
        suppressed, held[0], held[1] = held[1], steady_ns, 0
        return suppressed
