"""structlog and the standard library's logging, brought together: one shape of lines, one set of levels.

Apart from `ops.log`, for structlog costs 70 ms to import.
"""

import logging
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from types import TracebackType
from typing import Any

import orjson
import structlog

from tradeback.ops.components import LEVELS, LOGGERS, Thresholds, component_of
from tradeback.ops.log_output import FIRST, Delivery
from tradeback.ops.log_text import Cleaner
from tradeback.ops.repeats import KIND, Event

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class Chain:
    """Makes an event of what is logged, and delivers it."""

    def __init__(
        self, delivery: Delivery, cleaner: Cleaner, stamp: Callable[[float | None], str], process: str
    ) -> None:
        """`stamp`: a time of the wall clock in s, None for now, as text. `process`: stands in every line."""
        self.delivery = delivery
        self._cleaner, self._stamp = cleaner, stamp
        self._process = process

    def structlog(self, _logger: Any, level: str, fields: MutableMapping[str, Any]) -> Any:
        """The one processor of structlog; nothing comes after it."""
        self._deliver(level, dict(fields), None)
        raise structlog.DropEvent

    def record(self, record: logging.LogRecord) -> None:
        """A record of the standard library."""
        fields: dict[str, Any] = {"event": message_of(record), "component": component_of(record.name)}
        if fields["component"] == "library":
            fields["logger"] = record.name
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        fields[KIND] = str(record.msg)
        level = next((name for name, rank in LEVELS.items() if record.levelno <= rank), "error")
        self._deliver(level, fields, record.created)

    def _deliver(self, level: str, fields: dict[str, Any], created_s: float | None) -> None:
        kind = fields.pop(KIND, None)
        error = _exc_info(fields.pop("exc_info", None))
        if error is not None:
            fields["exception"] = "".join(traceback.format_exception(*error)).rstrip("\n")
        held = self._cleaner.fields(fields)
        held |= {"timestamp": self._stamp(created_s), "level": level}
        held.setdefault("component", "engine")
        if self._process:
            held.setdefault("process", self._process)
        event: Event = {key: held[key] for key in FIRST if key in held} | held
        if kind is not None:
            event[KIND] = kind
        self.delivery.take(event)


def message_of(record: logging.LogRecord) -> str:
    """The text of a record, whatever its arguments."""
    try:
        return record.getMessage()
    except Exception as error:  # arguments of any type: the line is written all the same
        return f"{record.msg} ({type(error).__name__} while it was formatted)"


def _exc_info(given: Any) -> ExcInfo | None:
    """What structlog's and logging's exc_info may be."""
    if isinstance(given, BaseException):
        return type(given), given, given.__traceback__
    if isinstance(given, tuple) and len(given) == 3 and given[0] is not None:
        return given
    found = sys.exc_info() if given is True else (None, None, None)
    return None if found[0] is None else found


def to_json(event: Mapping[str, Any]) -> str:
    """One JSON object; the fields are clean, so nothing of it can be refused."""
    return orjson.dumps(event).decode()


def to_terminal(*, colours: bool) -> Callable[[Event], str]:
    """Readable lines."""
    # A traceback is text by then, which a fancier formatter could not read.
    render = structlog.dev.ConsoleRenderer(
        colors=colours, pad_event_to=32, exception_formatter=structlog.dev.plain_traceback
    )
    return lambda event: str(render(None, "", dict(event)))


class Bridge(logging.Handler):
    """Records of the standard library become events like all others."""

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        self._chain = chain

    def emit(self, record: logging.LogRecord) -> None:
        self._chain.record(record)


def put_bridge(chain: Chain) -> None:
    """From now on all that is logged by the standard library goes this way."""
    root = logging.getLogger()
    for handler in [held for held in root.handlers if isinstance(held, Bridge)]:
        root.removeHandler(handler)
    root.addHandler(Bridge(chain))


def set_loggers(thresholds: Thresholds) -> None:
    """Let the standard library's loggers drop by themselves what is not wanted."""
    logging.getLogger().setLevel(thresholds.ranks["library"])
    for name, component in LOGGERS.items():
        logging.getLogger(name).setLevel(thresholds.ranks[component])


def logger_class(thresholds: Thresholds) -> type[structlog.BoundLoggerBase]:
    """A bound logger that asks for its component's threshold with every call: 0.2 us when it is not met."""

    class ComponentLogger(structlog.BoundLoggerBase):
        def _rank(self) -> int:
            return thresholds.ranks.get(self._context.get("component", ""), thresholds.other)

        def debug(self, event: str, **fields: Any) -> None:
            if self._rank() <= 10:
                self._proxy_to_logger("debug", event, **fields)

        def info(self, event: str, **fields: Any) -> None:
            if self._rank() <= 20:
                self._proxy_to_logger("info", event, **fields)

        def warning(self, event: str, **fields: Any) -> None:
            if self._rank() <= 30:
                self._proxy_to_logger("warning", event, **fields)

        def error(self, event: str, **fields: Any) -> None:
            if self._rank() <= 40:
                self._proxy_to_logger("error", event, **fields)

    return ComponentLogger
