"""cli.doctor_machine: each check on a sound machine and on a broken one."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.access_world import guarded
from tradeback.cli import doctor_machine
from tradeback.model.config import Config, FeedConfig, ServerConfig, TapeConfig
from tradeback.ops import limits


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "open_files", lambda: (64, 600))
    assert doctor_machine.check_files(Config(feed=FeedConfig(clients_max=88))).state == "ok"
    found = doctor_machine.check_files(Config(feed=FeedConfig(clients_max=89)))
    assert found.state == "warn"
    assert "ulimit -Hn 601" in found.remedy
    assert "FEED_CLIENTS_MAX to 88" in found.remedy


def test_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = TapeConfig(segment_bytes=1, retention_bytes=1)
    assert doctor_machine.check_data_dir(Config(data_dir=str(tmp_path / "a" / "b"), tape=small)).state == "ok"
    assert not (tmp_path / "a").exists(), "a check changes nothing"
    huge = TapeConfig(segment_bytes=2**60, retention_bytes=2**60)
    found = doctor_machine.check_data_dir(Config(data_dir=str(tmp_path), tape=huge))
    assert (found.state, "DATA_DIR" in found.remedy) == ("fail", True)
    (tmp_path / "file").write_text("")
    found = doctor_machine.check_data_dir(Config(data_dir=str(tmp_path / "file" / "data"), tape=small))
    assert (found.state, "DATA_DIR" in found.remedy) == ("fail", True)


def test_kernel_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert "compiles" in doctor_machine.check_cache().found
    (tmp_path / "x.nbc").write_text("")
    assert "filled" in doctor_machine.check_cache().found
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "none"))
    assert doctor_machine.check_cache().state == "warn"


def test_port(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "PORT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        busy = doctor_machine.check_port(Config(server=ServerConfig(port=server.getsockname()[1])))
    assert (busy.state, "SERVER_PORT" in busy.remedy) == ("fail", True)
    assert doctor_machine.check_port(Config(server=ServerConfig(port=0))).state == "ok"
    assert doctor_machine.check_port(Config(server=ServerConfig(host="no.such.host.invalid"))).state == "fail"


@pytest.mark.parametrize(
    ("number", "words", "remedy"),
    [
        (errno.EACCES, "Permission denied", "above 1023"),
        (errno.EADDRNOTAVAIL, "Cannot assign", "SERVER_HOST"),
        (errno.EADDRINUSE, "in use", "SERVER_PORT"),
    ],
)
def test_what_may_be_wrong_with_a_port(
    number: int, words: str, remedy: str, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "socket", Refusing)
    found = doctor_machine.check_port(Config(server=ServerConfig(port=closed_port)))
    assert (found.state, words in found.found, remedy in found.remedy) == ("fail", True, True), found


async def test_an_engine_on_the_port_is_no_fault(tmp_path: Path) -> None:
    import asyncio

    async with guarded(tmp_path) as world:
        config = Config(server=ServerConfig(port=world.front.port))
        found = await asyncio.to_thread(doctor_machine.check_port, config)
    assert "an engine serves there" in found.found
    assert (found.state, "another SERVER_PORT" in found.remedy) == ("ok", True), found


def test_the_disk_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    found = doctor_machine.check_writes(Config(data_dir=str(tmp_path / "new")))
    assert found is not None
    assert "us (p99" in found.found
    assert "for a sync" in found.found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("writes_us", "syncs_ms", "kind", "state", "remedy"),
    [
        ([10.0], [2.0], "ext4", "ok", ""),
        ([10.0], [2.0], "", "ok", ""),
        ([900.0], [2.0], "ext4", "warn", "faster disk"),
        ([10.0], [700.0], "ext4", "warn", "faster disk"),
        ([10.0], [], "ext4", "warn", "faster disk"),
        ([10.0], [2.0], "nfs4", "warn", "a disk of this machine"),
        ([10.0], [0.1], "tmpfs", "warn", "outlive"),
    ],
)
def test_disks_that_will_not_do(
    writes_us: list[float], syncs_ms: list[float], kind: str, state: str, remedy: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(doctor_machine, "measure_disk", lambda folder: (writes_us, syncs_ms))
    monkeypatch.setattr(doctor_machine, "filesystem", lambda folder: kind)
    found = doctor_machine.check_writes(Config(data_dir=str(tmp_path)))
    assert found is not None
    assert (found.state, remedy in found.remedy) == (state, True), found


def test_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(doctor_machine, "measure_disk", refuse)
    found = doctor_machine.check_writes(Config(data_dir=str(tmp_path)))
    assert found is not None
    assert (found.state, "No space left" in found.found) == ("fail", True)


def test_the_kind_of_a_filesystem(tmp_path: Path) -> None:
    if not os.path.exists("/proc/self/mounts"):
        pytest.skip("this system lists no mounts")
    assert doctor_machine.filesystem("/proc/self") in ("proc", "")
    assert doctor_machine.filesystem("/no/such/folder") == doctor_machine.filesystem("/")


@pytest.mark.parametrize(("free", "state"), [(1 << 34, "ok"), (1 << 24, "warn")])
def test_memory(free: int, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "free_memory", lambda: free)
    found = doctor_machine.check_memory(Config())
    assert found is not None
    assert found.state == state
    monkeypatch.setattr(doctor_machine, "free_memory", lambda: None)
    assert doctor_machine.check_memory(Config()) is None


def test_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    assert doctor_machine.check_processors(Config(spin=True, feed=FeedConfig(workers=1))).state == "ok"
    found = doctor_machine.check_processors(Config(feed=FeedConfig(workers=2)))
    assert (found.state, "FEED_WORKERS to 1" in found.remedy) == ("warn", True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    assert "SPIN" in doctor_machine.check_processors(Config(spin=True)).remedy


def test_room_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = list(os.statvfs(tmp_path))
    status[5], status[7] = 1_000_000, 3  # f_files, f_favail
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(status))
    small = TapeConfig(segment_bytes=1, retention_bytes=1)
    found = doctor_machine.check_data_dir(Config(data_dir=str(tmp_path), tape=small))
    assert (found.state, "inodes" in found.remedy) == ("warn", True), found
