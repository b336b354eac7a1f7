"""`tradeback doctor` on NATS."""

from pathlib import Path

import pytest

from tests.servers.fixtures import need
from tests.servers.kinds import NatsServer
from tests.servers.process import free_port
from tests.sinks.nats_world import config_of, connected, node_name
from tradeback.cli import doctor_nats
from tradeback.cli.doctor_nats import check_nats
from tradeback.model.config import Config
from tradeback.stores.nats_stream import TapeStream


async def test_nothing_is_said_without_nats() -> None:
    assert await check_nats(Config()) is None


async def test_a_server_that_has_what_is_needed(tmp_path: Path, nats_server: NatsServer) -> None:
    config = config_of(tmp_path, nats_server.url, node_name())
    found = await check_nats(config)
    assert found is not None
    assert (found.state, "no stream yet" in found.found) == ("ok", True)
    async with connected(config.nats) as bus:
        await TapeStream(bus, config.nats).ensure()
    found = await check_nats(config)
    assert found is not None
    assert (found.state, "0 messages in its stream" in found.found) == ("ok", True)
    without = await check_nats(config_of(tmp_path, nats_server.url, node_name(), jetstream=False))
    assert without is not None
    assert "without a stream" in without.found


async def test_what_is_wrong_comes_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_nats, "REACH_S", 0.5)
    need(NatsServer)
    found = await check_nats(config_of(tmp_path, f"nats://me:hunter2@127.0.0.1:{free_port()}", "hub"))
    assert found is not None
    assert found.state == "fail"
    assert "cannot be reached" in found.found
    assert "start the server" in found.remedy
    assert "hunter2" not in f"{found}"

    class Plain(NatsServer):
        """Without JetStream."""

        def command(self) -> list[str]:
            return ["nats-server", "-a", "127.0.0.1", "-p", str(self.port)]

    with Plain(tmp_path / "server") as server:
        found = await check_nats(config_of(tmp_path, server.url, "hub"))
    assert found is not None
    assert (found.state, "-js" in found.remedy) == ("fail", True)
