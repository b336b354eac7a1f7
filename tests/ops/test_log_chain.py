"""ops.log_chain: what the standard library and structlog give becomes an event, whatever it is."""

import logging
import sys
from typing import Any

import pytest
import structlog

from tradeback.ops.components import Thresholds
from tradeback.ops.log_chain import Chain, logger_class, message_of
from tradeback.ops.log_output import Delivery, Output
from tradeback.ops.log_text import Cleaner


class Taken(Delivery):
    """Keeps events instead of writing them."""

    def __init__(self) -> None:
        super().__init__(Output(sys.stderr), str)
        self.events: list[dict[str, Any]] = []

    def take(self, event: dict[str, Any]) -> None:
        self.events.append(event)


def chain() -> tuple[Chain, list[dict[str, Any]]]:
    taken = Taken()
    return Chain(taken, Cleaner(), lambda created_s: f"at {created_s}", "engine"), taken.events


def record(level: int, message: Any, *arguments: Any, name: str = "tradeback.feed") -> logging.LogRecord:
    return logging.LogRecord(name, level, "x.py", 1, message, arguments, None)


def test_a_record_whose_arguments_do_not_fit_is_logged_all_the_same() -> None:
    assert message_of(record(20, "%d clients", "x")) == "%d clients (TypeError while it was formatted)"
    assert message_of(record(20, "%d clients", 3)) == "3 clients"


@pytest.mark.parametrize(
    ("rank", "level"),
    [(5, "debug"), (10, "debug"), (20, "info"), (25, "warning"), (40, "error"), (50, "error")],
)
def test_any_level_of_the_standard_library_is_one_of_ours(rank: int, level: str) -> None:
    held, events = chain()
    held.record(record(rank, "text"))
    assert events[0]["level"] == level
    assert str(events[0]["timestamp"]).startswith("at 1")


def test_an_own_process_field_stays() -> None:
    """The supervisor tells of others."""
    held, events = chain()
    for fields in ({"event": "a"}, {"event": "b", "process": "worker:0"}):
        with pytest.raises(structlog.DropEvent):
            held.structlog(None, "info", fields)
    assert [event["process"] for event in events] == ["engine", "worker:0"]


@pytest.mark.parametrize("given", [True, "tuple", "error"])
def test_tracebacks_of_all_kinds_of_exc_info(given: Any) -> None:
    held, events = chain()
    try:
        raise ValueError("broken")
    except ValueError as error:
        kinds = {"tuple": (ValueError, error, error.__traceback__), "error": error}
        with pytest.raises(structlog.DropEvent):
            held.structlog(None, "error", {"event": "a", "exc_info": kinds.get(given, given)})
    assert events[0]["exception"].startswith("Traceback")
    assert events[0]["exception"].endswith("ValueError: broken")


def test_what_is_below_the_threshold_costs_nothing_but_the_question() -> None:
    thresholds, calls = Thresholds(), list[str]()

    def processor(_logger: Any, method: str, fields: Any) -> Any:
        calls.append(method)
        raise structlog.DropEvent

    made = logger_class(thresholds)(None, [processor], {"component": "line"})
    log: Any = made
    for wanted, expected in (("debug", 4), ("info", 3), ("warning", 2), ("error", 1)):
        thresholds.set_run_time({"line": wanted})
        calls.clear()
        for method in ("debug", "info", "warning", "error"):
            getattr(log, method)("event", field=1)
        assert len(calls) == expected
