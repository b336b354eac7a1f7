"""The log: JSON lines on stderr, or coloured lines when a person looks at a terminal.

structlog costs 70 ms to import and 6 us a line, so nothing per tick is ever logged: whoever may repeat
himself asks a `RepeatLimiter` first. A value whose key sounds like a secret is masked.
"""

import sys
from collections.abc import MutableMapping
from typing import Any, Protocol, TextIO

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
SECRET_WORDS = ("token", "password", "secret", "authorization", "cookie", "api_key")
MASK = "***"
REPEAT_KEYS_MAX = 1_024
"""Keys a limiter remembers; beyond it the oldest is forgotten, which costs at most one extra line."""


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


def mask_secrets(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: hide values of keys that sound like secrets, at any depth."""
    for key, value in event.items():
        event[key] = MASK if _is_secret(key) else _masked(value)
    return event


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: MASK if _is_secret(key) else _masked(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(held) for held in value]
    return value


def _is_secret(key: Any) -> bool:
    return isinstance(key, str) and any(word in key.lower() for word in SECRET_WORDS)


def configure(level: str, stream: TextIO | None = None, *, console: bool | None = None) -> None:
    """Set up the log of this process. `console` None: coloured lines if `stream` (stderr) is a terminal."""
    import structlog

    target = stream if stream is not None else sys.stderr
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        mask_secrets,
    ]
    if console if console is not None else target.isatty():
        chain = [
            *shared,
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
            structlog.dev.ConsoleRenderer(colors=target.isatty(), pad_event_to=32),
        ]
    else:
        chain = [
            *shared,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _to_json,
        ]
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )


def get_log(part: str) -> Log:
    """The log of one part of the engine (`line`, `tape`, ...). Call after `configure`: bound at once."""
    import structlog

    bound: Log = structlog.get_logger().bind(part=part)
    return bound


def _to_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    import orjson

    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return orjson.dumps(dict(event), default=repr, option=options).decode()


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
