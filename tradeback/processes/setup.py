"""What the supervisor tells a child before its first line: its role, the configuration, inherited files."""

import os
import socket

import msgspec

from tradeback.model.config import Config

ENGINE, RECORDER, WORKER = "engine", "recorder", "worker"
STOPPING = "stopping"
"""The supervisor's word to a child that the whole run ends, not this child alone."""


class Setup(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One child's start. All numbers named `*_fd` are descriptors that it inherits."""

    role: str
    name: str
    """As shown to operators: engine, recorder, worker:0."""
    number: int = 0
    """Of a worker, from 0."""
    config: Config
    control_fd: int
    """A link to the supervisor: its end is the supervisor's end."""
    page_fd: int
    port_fds: tuple[int, ...] = ()
    """The engine's: listening sockets of the one port."""
    wake_fds: tuple[int, ...] = ()
    """Eventfds: of all workers for the engine, its own for a worker."""
    listen_fd: int = -1
    """Where a recorder or worker takes the engine's link."""
    addresses: dict[str, str] = {}
    """The engine's: where recorder and workers listen, by name."""
    colour: bool = False
    """The log goes to a terminal."""


def pass_on(setup: Setup) -> int:
    """A descriptor (memfd) from which `take_over` reads the setup; not inherited unless asked for."""
    descriptor = os.memfd_create("tradeback-setup")
    os.write(descriptor, msgspec.json.encode(setup))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def take_over(descriptor: int) -> Setup:
    """The setup, in the child. What was inherited is inherited no further."""
    with os.fdopen(descriptor, "rb") as file:
        setup = msgspec.json.decode(file.read(), type=Setup)
    held = [setup.control_fd, setup.page_fd, setup.listen_fd, *setup.port_fds, *setup.wake_fds]
    for inherited in held:
        if inherited >= 0:
            os.set_inheritable(inherited, False)
    return setup


def socket_of(descriptor: int) -> socket.socket:
    """An inherited socket."""
    return socket.socket(fileno=descriptor)
