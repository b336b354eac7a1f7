"""Every server starts, answers, survives what tests do to it, and is gone in the end."""

import socket
from pathlib import Path

import pytest

from tests.servers import fixtures
from tests.servers.kinds import InfluxServer, MariadbServer, NatsServer, RedisServer
from tests.servers.process import Server, ServerFailed, ask

KINDS: tuple[type[Server], ...] = (RedisServer, NatsServer, MariadbServer, InfluxServer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_lives_through_pause_kill_and_restart(kind: type[Server], tmp_path: Path) -> None:
    fixtures.need(kind)
    with kind(tmp_path) as server:
        port = server.port
        server.pause()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.settimeout(0.05)
            connection.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(1)
        server.resume()
        assert server.is_ready()
        server.kill()
        assert not server.running
        with pytest.raises(ConnectionRefusedError):
            ask(port, b"")
        server.heal()
        assert server.is_ready()
        server.restart()
        assert server.is_ready()
        assert server.port == port
    assert not server.running


def test_a_paused_server_still_stops(tmp_path: Path) -> None:
    fixtures.need(RedisServer)
    with RedisServer(tmp_path) as server:
        server.pause()
    assert not server.running


def test_a_server_that_refuses_its_options_says_why(tmp_path: Path) -> None:
    fixtures.need(RedisServer)
    with pytest.raises(ServerFailed, match=r"ended with 1:\n[^$]*no-such-option"):
        RedisServer(tmp_path, "--no-such-option", "1").start()


def test_a_missing_program_skips_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing(RedisServer):
        program = "no-such-server"

    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-server is not installed"):
        fixtures.need(Missing)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-server is not installed"):
        fixtures.need(Missing)


def test_fixtures_answer(
    redis_server: RedisServer,
    nats_server: NatsServer,
    mariadb_server: MariadbServer,
    influx_server: InfluxServer,
) -> None:
    assert ask(redis_server.port, b"PING\r\n") == b"+PONG\r\n"
    assert ask(nats_server.port, b"").startswith(b"INFO")
    assert mariadb_server.sql("SELECT 1 + 1, 'a'") == [["2", "a"]]
    influx_server.query("CREATE DATABASE kinds")
    assert ["kinds"] in influx_server.values("SHOW DATABASES", "")
    with pytest.raises(ServerFailed, match="database not found"):
        influx_server.query("SELECT * FROM x", "absent")


def test_what_a_test_kills_is_healed(redis_server: RedisServer) -> None:
    redis_server.kill()
    for server in fixtures._started:
        server.heal()
    assert ask(redis_server.port, b"PING\r\n") == b"+PONG\r\n"
