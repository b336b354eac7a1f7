"""Pytest's fixtures of the servers: one process each for the whole run, healed after every test.

A server whose program is missing skips its tests with the reason, and fails them where CI is set.
"""

import os
from collections.abc import Iterator
from typing import TypeVar

import pytest

from tests.servers.kinds import InfluxServer, MariadbServer, NatsServer, RedisServer
from tests.servers.process import Server, find_binary

_Kind = TypeVar("_Kind", bound=Server)
_started: list[Server] = []


def need(kind: type[Server]) -> None:
    """Skip, or fail where CI is set, when the server's program is not installed."""
    if find_binary(kind.program) is not None:
        return
    reason = f"{kind.program} is not installed: `make servers` as root, or install package {kind.package}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _session(kind: type[_Kind], factory: pytest.TempPathFactory) -> Iterator[_Kind]:
    need(kind)
    with kind(factory.mktemp(kind.program)) as server:
        _started.append(server)
        yield server
        _started.remove(server)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Redis on a free port. Shared by all tests: begin with keys of your own, or FLUSHALL."""
    yield from _session(RedisServer, tmp_path_factory)


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """NATS with JetStream. Shared by all tests: subjects and streams of your own."""
    yield from _session(NatsServer, tmp_path_factory)


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariadbServer]:
    """MariaDB. Shared by all tests: a database of your own (`server.sql("CREATE DATABASE ...")`)."""
    yield from _session(MariadbServer, tmp_path_factory)


@pytest.fixture(scope="session")
def influx_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """InfluxDB 1.x. Shared by all tests: a database of your own."""
    yield from _session(InfluxServer, tmp_path_factory)


@pytest.fixture(autouse=True)
def _servers_heal() -> Iterator[None]:
    """What a test paused or killed runs again for the next one."""
    yield
    for server in _started:
        server.heal()
