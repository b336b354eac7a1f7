"""sinks/nats: which drains there are, and the connection that they share."""

import builtins
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.servers.kinds import NatsServer
from tests.sinks.nats_world import (
    LOG,
    config_of,
    connected,
    drained,
    drains_of,
    node_name,
    open_tape,
    rows_of,
)
from tradeback.model.config import Config
from tradeback.model.errors import StartupError
from tradeback.sinks.nats import Connection
from tradeback.stores.bus_nats import NatsBus
from tradeback.stores.ports import Position


def test_none_without_a_url(tmp_path: Path) -> None:
    with open_tape(tmp_path):
        assert drains_of(Config(data_dir=str(tmp_path))) == {}


def test_which_there_are(tmp_path: Path) -> None:
    with open_tape(tmp_path):
        config = config_of(tmp_path, "nats://localhost:4222", "hub")
        assert set(drains_of(config)) == {"nats:ticks", "nats:prices"}


def test_a_missing_library_is_told_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "tradeback.stores.bus_nats":
            raise ModuleNotFoundError("No module named 'nats'", name="nats")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with open_tape(tmp_path), pytest.raises(StartupError, match="pip install"):
        drains_of(config_of(tmp_path, "nats://localhost:4222", "hub"))


async def test_all_share_one_connection(tmp_path: Path, nats_server: NatsServer) -> None:
    config = config_of(tmp_path, nats_server.url, node_name())
    with open_tape(tmp_path) as tape:
        drains = drains_of(config)
        tape.append(rows_of(100))
        for drain in drains.values():
            drain.start()
        for drain in drains.values():
            await drained(drain, tape)
        buses = {id(drain._target._session.bus): drain._target._session.bus for drain in drains.values()}  # type: ignore[attr-defined]
        (bus,) = buses.values()
        assert bus.connects == 1
        for drain in drains.values():
            await drain.stop()
        assert not bus.connected.is_set()


async def test_positions_are_kept_until_the_last_has_left(tmp_path: Path, nats_server: NatsServer) -> None:
    config = config_of(tmp_path, nats_server.url, node_name())
    async with connected(config.nats):
        connection = Connection(NatsBus(config.nats, LOG), tmp_path / "positions.sqlite")
        await connection.enter()
        await connection.enter()
        connection.positions.save("x", Position(1, 2))
        await connection.leave()
        assert connection.positions.load("x") == Position(1, 2)
        await connection.leave()
        again = Connection(NatsBus(config.nats, LOG), tmp_path / "positions.sqlite")
        await again.enter()
        assert again.positions.load("x") == Position(1, 2)
        await again.leave()


def test_switched_off_features_are_not_published(tmp_path: Path) -> None:
    with open_tape(tmp_path):
        config = config_of(tmp_path, "nats://localhost:4222", "hub")
        off = msgspec.structs.replace(config.feature, enigma_enabled=False)
        made = drains_of(msgspec.structs.replace(config, feature=off))
        assert made["nats:prices"]._target._levels is None  # type: ignore[attr-defined]
