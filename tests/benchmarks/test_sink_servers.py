"""Trouble as path_sinks makes it: it comes and goes while trades flow, and is over when the phase is."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest

from benchmarks.harness import sink_servers
from benchmarks.harness.sink_servers import HUNG, KILLED, ailing
from tests.servers.process import Server


class Ailing:
    """Notes what is done to it."""

    def __init__(self, broken: bool = False) -> None:
        self.done: list[str] = []
        self.healed = threading.Event()
        self._broken = broken

    def pause(self) -> None:
        self.done.append("pause")

    def kill(self) -> None:
        self.done.append("kill")

    def heal(self) -> None:
        if self._broken:
            raise RuntimeError("it does not start again")
        self.done.append("heal")
        self.healed.set()


@pytest.fixture
def hand() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.mark.parametrize(("kind", "done"), [(HUNG, "pause"), (KILLED, "kill")])
def test_trouble_comes_while_the_body_runs_and_is_gone_behind_it(
    hand: ThreadPoolExecutor, kind: str, done: str
) -> None:
    servers = Ailing(), Ailing()
    with ailing(hand.submit, cast("tuple[Server, ...]", servers), kind, 0.02, 0.02):
        assert [server.done for server in servers] == [[], []]
        assert servers[-1].healed.wait(60.0)
    assert [server.done for server in servers] == [[done, "heal"], [done, "heal"]]


def test_it_begins_and_lasts_as_long_as_told(hand: ThreadPoolExecutor) -> None:
    server, began = Ailing(), time.monotonic()
    with ailing(hand.submit, cast("tuple[Server, ...]", (server,)), HUNG, 0.02, 0.03):
        pass
    assert server.done == ["pause", "heal"]
    assert time.monotonic() - began >= 0.05


def test_a_server_that_does_not_come_back_is_told(hand: ThreadPoolExecutor) -> None:
    servers = cast("tuple[Server, ...]", (Ailing(broken=True),))
    with (
        pytest.raises(RuntimeError, match="does not start again"),
        ailing(hand.submit, servers, KILLED, 0.0, 0.0),
    ):
        pass


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_servers, "find_binary", lambda name: None if name == "influxd" else name)
    assert sink_servers.not_installed().startswith("not installed: influxd (")
    monkeypatch.setattr(sink_servers, "find_binary", lambda name: name)
    assert sink_servers.not_installed() == ""
