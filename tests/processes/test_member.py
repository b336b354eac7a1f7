"""processes/member: whether the run goes on without this process, which decides what its clients are told."""

import socket
from collections.abc import AsyncIterator

import pytest

from tests.exchange.harness import until
from tradeback.model.config import Config
from tradeback.processes import member
from tradeback.processes.link import Link
from tradeback.processes.member import Control
from tradeback.processes.setup import STOPPING, WORKER, Setup


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Link, Control]]:
    """The supervisor's end, and the child's."""
    near, far = socket.socketpair()
    setup = Setup(role=WORKER, name="worker:0", config=Config(), control_fd=far.detach(), page_fd=-1)
    link, control = Link(near, lambda *_: None, lambda: None), Control(setup)
    yield link, control
    control.close()
    link.close()


async def test_without_a_word_of_the_supervisor_the_run_goes_on(
    ends: tuple[Link, Control], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "WORD_S", 0.01)
    assert await ends[1].goes_on()


async def test_its_word_may_come_with_or_after_the_signal(ends: tuple[Link, Control]) -> None:
    link, control = ends
    heard: list[object] = []
    control.listen(heard.append)
    link.send({"processes": []})
    link.send({STOPPING: True})
    assert not await control.goes_on()
    assert heard == [{"processes": []}], "the word itself is not the listener's business"


async def test_with_the_supervisor_the_run_ends(ends: tuple[Link, Control]) -> None:
    link, control = ends
    link.close()
    await until(control.gone.is_set)
    assert not await control.goes_on()
