"""Requests made up from the OpenAPI document (schemathesis): no 5xx, no answer that is not documented."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.api.history_world import BEGIN_S, Exchange, trades
from tests.api.test_gaps import Source
from tests.feed.harness import World
from tests.sinks.gate import Gate
from tradeback.api.access import owner_of
from tradeback.api.app import make_app
from tradeback.api.openapi import document
from tradeback.api.settlement import SettlementDesk
from tradeback.model.config import Config, LimitConfig
from tradeback.ops.log import get_log
from tradeback.serving import make_access
from tradeback.stores.registry import open_registry
from tradeback.stores.registry_sqlite import RegistrySqlite
from tradeback.stores.settlements_sqlite import SettlementsSqlite

MANY = 1_000_000
OPEN = Config(
    limit=LimitConfig(
        read_per_second=MANY, history_per_second=MANY, write_per_second=MANY, login_per_minute=MANY
    )
)
"""Limits have tests of their own."""
EXAMPLES = 6
"""Of each operation; all together take a few seconds."""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
SKIPPED = {"get_ws"}
"""A WebSocket, tested elsewhere: clients of HTTP libraries refuse its 426."""


NEEDS_MORE = {"post_auth_login", "get_auth_session", "get_settlements_id"}
"""They succeed only with a password, a session or an id."""


@pytest.fixture
async def whole(served: World, gate: Gate, tmp_path: Path) -> AsyncIterator[World]:
    """Everything behind the routes is there, and knows something."""
    source = Source(tmp_path, served)
    ids = [number for number in range(1, 301) if number not in (50, 51, 52)]
    source.publish(trades([BEGIN_S + 20 * number for number in ids], ids=ids))
    source.ledger.sweep(int(BEGIN_S * 1e9) * 2)
    Exchange(served, gate, BEGIN_S - 300 * 60, BEGIN_S)
    store = SettlementsSqlite(tmp_path / "settlements.sqlite")
    desk = served.context.settlements = SettlementDesk(served.context, store)
    registry = RegistrySqlite(tmp_path / "registry.sqlite")
    context = served.context
    opened = open_registry(context.config, registry, context.clock, get_log("test"))
    context.access = make_access(OPEN, context.clock, served.feed, opened.accounts, get_log("test"))
    context.owner_of = owner_of
    context.not_ready = list
    yield served
    await desk.stop()
    registry.close()
    store.close()
    source.store.close()


def operations(schema: Any) -> list[Any]:
    return [result.ok() for result in schema.get_all_operations()]


def shoot(running_url: str, operation: Any, checks: list[Any]) -> set[int]:
    """Requests as the document has them, with a symbol that exists, and such as it has not. Blocking.

    The statuses of the answers.
    """
    import schemathesis

    known: dict[str, Any] = {}
    if "symbol" in [param.name for param in operation.path_parameters]:
        known["path_parameters"] = {"symbol": "btcusdt"}
    if "symbol" in [param.name for param in operation.query]:
        known["query"] = {"symbol": "BTCUSDT"}
    if operation.definition.raw["operationId"] == "post_settlements":
        known["body"] = {"symbol": "BTCUSDT", "time": BEGIN_S * 1_000 + 90_000}
    ways = [{"generation_mode": schemathesis.GenerationMode.POSITIVE, **known}]
    if operation.query or operation.body:
        ways.append({"generation_mode": schemathesis.GenerationMode.NEGATIVE})
    if known:
        ways.append({"generation_mode": schemathesis.GenerationMode.POSITIVE})
    if operation.definition.raw["operationId"] == "put_marketwatch":
        ways[0]["body"] = {"symbols": ["BTCUSDT", "ETHUSDT"]}
    statuses = set()
    for way in ways:

        @seed(5)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(**way))
        def send(case: Any) -> None:
            statuses.add(case.call_and_validate(base_url=running_url, checks=checks).status_code)

        send()
    return statuses


async def test_no_request_gets_an_answer_that_is_not_documented(whole: World) -> None:
    import schemathesis

    schemathesis.checks.load_all_checks()
    checks = schemathesis.checks.CHECKS.get_by_names(CHECKS)
    schema = schemathesis.openapi.from_dict(document(make_app(whole.context)))
    wrong, never = [], []
    for operation in operations(schema):
        if operation.definition.raw["operationId"] in SKIPPED:
            continue
        try:
            statuses = await asyncio.to_thread(shoot, whole.http, operation, checks)
        except BaseExceptionGroup as error:
            wrong.append(f"{operation.label}: {error}")
        else:
            if not any(status < 300 for status in statuses):
                never.append(operation.definition.raw["operationId"])
    assert not wrong, "\n".join(wrong)
    assert set(never) <= NEEDS_MORE, "requests that never get through test little"
