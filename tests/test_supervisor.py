"""supervisor: who is started again and when, what ends the run, and in which order all stop."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.exchange.harness import Logbook, until
from tradeback import supervisor as module
from tradeback.model.config import Config, FeedConfig, ServerConfig
from tradeback.processes.link import HEAD
from tradeback.processes.setup import Setup
from tradeback.processes.spawn import Started, how_it_ended
from tradeback.supervisor import Family, Supervisor

SAY = """
import socket, struct, sys, signal
def say(text):
    data = text.encode()
    control.sendall(struct.pack("<III", len(data), 0, 0) + data)
control = socket.socket(fileno=int(sys.argv[1]))
"""
LIVES = SAY + "say('{\"up\": true}'); signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.pause()"
FAILS = SAY + 'say(\'{"words": "the disk is full"}\'); sys.exit(1)'
REFUSES = "raise SystemExit(2)"
STUBBORN = SAY + "signal.signal(signal.SIGTERM, signal.SIG_IGN); say('{\"up\": true}'); signal.pause()"
assert HEAD.format == "<III"


class World:
    """A family whose children are small scripts."""

    def __init__(self, workers: int) -> None:
        config = Config(server=ServerConfig(port=0), feed=FeedConfig(workers=workers))
        self.scripts: dict[str, str] = {}
        self.started: list[str] = []
        self.ended: list[str] = []
        self.family = Family(config, colour=False)
        self.log = Logbook()
        self.opened: list[str] = []

    def spawn(self, setup: Setup, files: Any) -> Started:
        near, far = socket.socketpair()
        with far:
            script = self.scripts.get(setup.name, LIVES)
            command = [sys.executable, "-c", script, str(far.fileno())]
            process = subprocess.Popen(command, pass_fds=[far.fileno()])
        self.started.append(setup.name)
        return Started(process, near)

    def begin(self) -> Supervisor:
        self.family.start(self.family.engine)
        self.supervisor = Supervisor(self.family, self.log, self.opened.append)
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.supervisor.reap)
        return self.supervisor

    def child(self, name: str) -> module.Child:
        return next(child for child in self.family.children if child.name == name)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    made = World(2)
    monkeypatch.setattr(module, "spawn", made.spawn)
    monkeypatch.setattr(module, "BACKOFF_S", (0.0, 0.01, 0.02))
    yield made
    await made.supervisor.stop()
    asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
    assert all(child.started is None for child in made.family.children)


async def test_the_others_start_when_the_engine_is_up(world: World) -> None:
    world.begin()
    assert world.started == ["engine"]
    await until(lambda: len(world.started) == 4)
    assert world.started[1:] == ["recorder", "worker:0", "worker:1"]
    await until(lambda: all(child.ever_up for child in world.family.children))


async def test_whoever_dies_is_started_again_at_once(world: World) -> None:
    world.begin()
    await until(lambda: all(child.ever_up for child in world.family.children))
    for name in ("worker:1", "engine", "recorder"):
        child = world.child(name)
        assert child.started is not None
        before = child.started.process
        before.kill()
        await until(lambda child=child: child.restarts == 1 and child.started)  # type: ignore[misc]
        assert child.started.process is not before
        assert child.last_end is not None
        assert child.last_end["how"] == "killed by SIGKILL"
    assert world.started[4:] == ["worker:1", "engine", "recorder"]


async def test_one_that_keeps_failing_is_tried_for_ever(world: World) -> None:
    world.scripts["recorder"] = FAILS
    supervisor = world.begin()
    child = world.child("recorder")
    await until(lambda: child.restarts > 8)
    assert child.last_end is not None
    assert child.last_end["words"] == "the disk is full"
    assert not supervisor.ended.done()
    world.scripts["recorder"] = LIVES
    await until(lambda: child.ever_up)


async def test_a_refusal_at_the_first_start_ends_the_run(world: World) -> None:
    world.scripts["engine"] = REFUSES
    assert await asyncio.wait_for(world.begin().ended, 20) == 2
    assert world.started == ["engine"]


async def test_a_refusal_later_is_tried_again_before_it_ends_the_run(world: World) -> None:
    supervisor = world.begin()
    engine = world.family.engine
    await until(lambda: engine.ever_up)
    world.scripts["engine"] = REFUSES
    assert engine.started is not None
    engine.started.process.kill()
    assert await asyncio.wait_for(supervisor.ended, 20) == 2
    assert engine.restarts == module.STARTS_MAX - 1


async def test_an_engine_that_never_comes_up_ends_the_run(world: World) -> None:
    world.scripts["engine"] = FAILS
    assert await asyncio.wait_for(world.begin().ended, 20) == 1


async def test_one_that_does_not_end_is_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_S", 0.2)
    world.scripts["worker:0"] = STUBBORN
    world.begin()
    await until(lambda: all(child.ever_up for child in world.family.children))
    await world.supervisor.stop()
    assert "worker:0" in [fields["process"] for fields in world.log.of("it does not end and is killed")]


def test_ends_in_words() -> None:
    assert how_it_ended(3) == "exit code 3"
    assert how_it_ended(-11) == "killed by SIGSEGV"
    assert how_it_ended(-64 - 1) == "killed by signal 65"
