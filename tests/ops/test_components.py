"""ops.components: every log has a name that is known, and the level that was asked for last."""

import ast
from pathlib import Path

import pytest

import tradeback
from tradeback.ops.components import ALL, COMPONENTS, LIBRARY, LOGGERS, Thresholds, component_of, parse_pair

SOURCES = sorted(Path(tradeback.__file__).parent.rglob("*.py"))
ROLES = {"setup.name": ("engine", "recorder", "worker")}


def names_in_sources() -> tuple[set[str], set[str]]:
    """Literal arguments of `get_log` and of `getLogger` in the whole package."""
    logs, loggers = set[str](), set[str]()
    for path in SOURCES:
        calls = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))
        for node in calls:
            if node.args:
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                held = node.args[0]
                if name == "get_log" and isinstance(held, ast.Constant):
                    logs.add(str(held.value))
                elif name == "get_log":
                    logs |= {*ROLES.get(ast.unparse(held), ())}
                elif name == "getLogger" and isinstance(held, ast.Constant):
                    loggers.add(str(held.value))
    return logs, loggers


def test_every_log_in_the_sources_is_a_component_and_every_component_logs() -> None:
    logs, loggers = names_in_sources()
    assert logs <= set(COMPONENTS), logs - set(COMPONENTS)
    assert {component_of(name) for name in loggers} <= set(COMPONENTS)
    assert {name for name in loggers if component_of(name) == LIBRARY} == set(), (
        "a logger without a component"
    )
    assert logs | {component_of(name) for name in loggers} | {LIBRARY} == set(COMPONENTS)
    assert set(LOGGERS.values()) <= set(COMPONENTS)


def test_run_time_goes_before_configuration_and_own_before_all() -> None:
    held = Thresholds()
    held.configure("warning", ["line=debug", "feed=error"])
    assert [held.ranks[name] for name in ("line", "feed", "gaps")] == [10, 40, 30]
    held.set_run_time({ALL: "info"})
    assert {held.ranks[name] for name in COMPONENTS if name != LIBRARY} == {20}
    held.set_run_time({ALL: "info", "line": "error"})
    assert (held.ranks["line"], held.level("line")) == (40, ("error", "run time"))
    held.set_run_time({})
    assert held.level("line") == ("debug", "configuration")
    assert held.other == 30


def test_packages_are_quiet_unless_they_are_named() -> None:
    held = Thresholds()
    held.configure("debug", [])
    assert held.level(LIBRARY) == ("warning", "default")
    held.set_run_time({LIBRARY: "debug"})
    assert held.ranks[LIBRARY] == 10
    held.configure("error", [])
    held.set_run_time({})
    assert held.level(LIBRARY) == ("error", "configuration")


def test_loggers_belong_to_the_nearest_component() -> None:
    assert component_of("tradeback.sinks.series") == "series"
    assert component_of("tradeback.sinks.influx.client") == "sinks"
    assert component_of("asyncio") == LIBRARY
    assert component_of("tradebackish") == LIBRARY


@pytest.mark.parametrize(
    ("text", "remedy"), [("line", "COMPONENT=LEVEL"), ("lines=info", "line,"), ("line=loud", "debug, info")]
)
def test_what_is_wrong_is_told_with_what_would_be_right(text: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        parse_pair(text)
    assert parse_pair(" Line = DEBUG ") == ("line", "debug")
