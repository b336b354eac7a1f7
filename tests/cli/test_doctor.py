"""cli.doctor through the command: a sound machine and a broken one."""

import asyncio
import json
import os
from pathlib import Path

from tests.cli.running import tradeback
from tests.servers.kinds import RedisServer
from tradeback.cli.children import Child


async def test_a_sound_machine_and_a_broken_one(tmp_path: Path, redis_server: RedisServer) -> None:
    simulator = await Child.start("the simulator", ("sim", "--port", "0", "--announce"), os.environ)
    try:
        exchange = await simulator.announcement(60)
        variables = {
            "EXCHANGE_WS_ENDPOINT": exchange["ws"],
            "EXCHANGE_REST_ENDPOINT": exchange["rest"],
            "DATA_DIR": str(tmp_path / "data"),
            "TAPE_RETENTION_BYTES": "64MiB",
            "SERVER_PORT": "0",
            "REDIS_ADDR": redis_server.address,
        }
        sound = await asyncio.to_thread(tradeback, "doctor", "--json", variables=variables)
    finally:
        await simulator.stop()
    assert (sound.returncode, sound.stderr) == (0, ""), sound.stdout
    found = {finding["check"]: finding for finding in json.loads(sound.stdout)}
    assert found.keys() >= {
        "versions", "configuration", "open files", "data folder", "disk writes", "processors",
        "kernel cache", "port", "tape", "registry", "access", "exchange REST", "clock", "symbols",
        "exchange streams", "Redis",
    }  # fmt: skip
    assert "accepts WebSockets" in found["exchange streams"]["found"]
    assert not (tmp_path / "data").exists(), "a check changes nothing"


def test_a_configuration_that_is_refused() -> None:
    broken = tradeback("doctor", variables={"FEED_LAG": "1"})
    assert broken.returncode == 1
    assert "FEED_LAG_MAX" in broken.stdout
    assert "correct it" in broken.stdout
