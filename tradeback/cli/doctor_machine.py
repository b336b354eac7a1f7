"""`tradeback doctor`: the machine. Limits, folders, disk, memory, processors, port; nothing is changed."""

import errno
import os
import platform
import time
from importlib import metadata
from statistics import median
from typing import TYPE_CHECKING, Final

from tradeback.cli.doctor import Finding

if TYPE_CHECKING:
    from tradeback.model.config import Config

PACKAGES: Final = ("numba", "numpy", "picows", "uvloop", "aiohttp", "orjson", "msgspec")
SPACE_WARN_BYTES: Final = 2 * 1024**3
FILES_WARN: Final = 1_000
"""Free inodes below which files may soon not be made any more."""
WRITES: Final = 200
WRITE_BYTES: Final = 4_096
WRITE_WARN_US: Final = 200.0
"""Each read of the exchange's socket waits for one write; a local disk's cache takes some us."""
SYNCS: Final = 5
PROBE_S: Final = 2.0
"""A disk that is slower than the whole probe may take is told so without the rest."""
NETWORK_KINDS: Final = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "lustre", "fuse.sshfs"}
MEMORY_KINDS: Final = {"tmpfs", "ramfs"}
MIB: Final = 1024**2
ENGINE_BYTES: Final = 250 * MIB
"""Engine, recorder and supervisor with some hundred symbols; docs/operations.md."""
WORKER_BYTES: Final = 80 * MIB
PORT_S: Final = 2.0


def check_machine(config: "Config") -> list[Finding]:
    """Everything that this machine alone decides."""
    found = [
        check_files(config),
        check_data_dir(config),
        check_writes(config),
        check_memory(config),
        check_processors(config),
        check_cache(),
        check_port(config),
    ]
    return [each for each in found if each is not None]


def check_versions() -> Finding:
    """Python and the libraries that matter for speed."""
    from tradeback.version import VERSION

    found = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return Finding("versions", "ok", f"tradeback {VERSION}, Python {platform.python_version()}, {found}")


def check_files(config: "Config") -> Finding:
    """Open files: one per subscriber, besides the engine's own."""
    from tradeback.ops.limits import OPEN_FILES_SPARE, open_files

    _, hard = open_files()
    wanted = config.feed.clients_max + OPEN_FILES_SPARE
    if hard >= wanted:
        return Finding("open files", "ok", f"{hard:,} allowed, {wanted:,} wanted")
    clients = max(1, hard - OPEN_FILES_SPARE)
    remedy = f"raise the hard limit (ulimit -Hn {wanted}) or lower FEED_CLIENTS_MAX to {clients}"
    return Finding("open files", "warn", f"{hard:,} allowed, {wanted:,} wanted for feed.clients_max", remedy)


# The data folder.


def existing_part(folder: str) -> str:
    """The folder, or the nearest one above it that is there."""
    found = os.path.abspath(folder)
    while not os.path.exists(found):
        found = os.path.dirname(found)
    return found


def check_data_dir(config: "Config") -> Finding:
    """A folder that can be written, or made, with room for the tape."""
    import shutil

    folder = os.path.abspath(config.data_dir)
    existing = existing_part(folder)
    if not os.path.isdir(existing) or not os.access(existing, os.W_OK | os.X_OK):
        return Finding("data folder", "fail", f"{folder} cannot be written", "choose another with DATA_DIR")
    free = shutil.disk_usage(existing).free
    wanted = max(0, config.tape.retention_bytes - _held(folder))
    found = f"{folder}, {free / 1024**3:.1f} GiB free, the tape may take {wanted / 1024**3:.1f} GiB more"
    if free < config.tape.segment_bytes:
        return Finding(
            "data folder", "fail", found, "free some space, or choose another folder with DATA_DIR"
        )
    if free < min(wanted, SPACE_WARN_BYTES):
        return Finding("data folder", "warn", found, "free some space, or lower TAPE_RETENTION_BYTES")
    status = os.statvfs(existing)
    if status.f_files > 0 and status.f_favail < FILES_WARN:
        words = f"{found}, room for {status.f_favail} more files"
        return Finding("data folder", "warn", words, "remove files: this filesystem runs out of inodes")
    return Finding("data folder", "ok", found)


def _held(folder: str) -> int:
    """Bytes that the tape takes already."""
    try:
        with os.scandir(os.path.join(folder, "tape")) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.is_file())
    except OSError:
        return 0


def check_writes(config: "Config") -> Finding | None:
    """How long the disk takes for what the engine does all the time: small writes, and a sync a second."""
    existing = existing_part(config.data_dir)
    try:
        writes_us, syncs_ms = measure_disk(existing)
    except OSError as error:
        words = f"{existing}: {error.strerror}"
        return Finding("disk writes", "fail", words, "free some space, or choose another with DATA_DIR")
    kind = filesystem(existing)
    write_us, sync_ms = median(writes_us), median(syncs_ms) if syncs_ms else float("nan")
    worst_us = sorted(writes_us)[int(0.99 * len(writes_us))]
    found = f"{write_us:.0f} us (p99 {worst_us:.0f}) for a write, {sync_ms:.1f} ms for a sync"
    found = f"{found}, on {kind}" if kind else found
    if kind in NETWORK_KINDS:
        return Finding("disk writes", "warn", found, "put DATA_DIR on a disk of this machine")
    if kind in MEMORY_KINDS:
        remedy = "put DATA_DIR on a disk, if the tape is to outlive this machine's next start"
        return Finding("disk writes", "warn", found, remedy)
    if write_us > WRITE_WARN_US or not syncs_ms or sync_ms > 500 * config.tape.sync_interval_s:
        remedy = "put DATA_DIR on a faster disk: every trade is written before anybody sees it"
        return Finding("disk writes", "warn", found, remedy)
    return Finding("disk writes", "ok", found)


def measure_disk(folder: str) -> tuple[list[float], list[float]]:
    """Times of appending small pieces (us) and of syncs (ms) to a file without a name. Raises OSError."""
    import tempfile

    writes_us: list[float] = []
    syncs_ms: list[float] = []
    piece = b"\0" * WRITE_BYTES
    end = time.monotonic() + PROBE_S
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        while len(writes_us) < WRITES and (not writes_us or time.monotonic() < end):
            begin = time.perf_counter()
            file.write(piece)
            writes_us.append(1e6 * (time.perf_counter() - begin))
        while len(syncs_ms) < SYNCS and time.monotonic() < end:
            file.write(piece)
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            syncs_ms.append(1e3 * (time.perf_counter() - begin))
    return writes_us, syncs_ms


def filesystem(folder: str) -> str:
    """Kind of the filesystem that holds a folder, as Linux names it; "" where the system does not tell."""
    real = os.path.realpath(folder)
    best, kind = "", ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                _, where, named, *_ = line.split(" ")
                point = where.encode().decode("unicode_escape")
                inside = real == point or real.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, named
    except (OSError, ValueError):
        return ""
    return kind


# Memory and processors.


def check_memory(config: "Config") -> Finding | None:
    """Room for the processes of a run; None where the system does not tell."""
    free = free_memory()
    if free is None:
        return None
    from tradeback.model.record import ROW_BYTES

    wanted = ENGINE_BYTES + config.tape.hot_rows * ROW_BYTES + config.feed.workers * WORKER_BYTES
    found = f"{free / MIB:,.0f} MiB free, about {wanted / MIB:,.0f} wanted"
    if free < wanted:
        return Finding("memory", "warn", found, "free some memory, or lower TAPE_HOT_ROWS or FEED_WORKERS")
    return Finding("memory", "ok", found)


def free_memory() -> int | None:
    """Bytes that may still be taken: of the machine, and of the container if that has a limit."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            found = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as limit:
            most = int(limit.read())
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as held:
            found = min(found, most - int(held.read()))
    except (OSError, ValueError):
        pass  # no container, or one without a limit ("max")
    return found


def check_processors(config: "Config") -> Finding:
    """Cores for whoever never sleeps, and for the workers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if config.spin and cores < 2:
        remedy = "unset SPIN: it takes a whole core, and there is no other"
        return Finding("processors", "warn", f"{cores} for this process, and spin is on", remedy)
    if config.feed.workers >= cores:
        remedy = f"lower FEED_WORKERS to {cores - 1}: the engine wants a core, too"
        return Finding("processors", "warn", f"{cores}, and {config.feed.workers} feed workers", remedy)
    return Finding("processors", "ok", f"{cores} for this process")


def check_cache() -> Finding:
    """The folder that keeps compiled kernels."""
    from tradeback import kernel_cache

    folder = os.environ.get("NUMBA_CACHE_DIR", "")
    if not folder or not os.access(folder, os.W_OK):
        remedy = "name a folder that can be written with TRADEBACK_CACHE_DIR; each start compiles until then"
        return Finding("kernel cache", "warn", f"{folder or 'no folder'} cannot be written", remedy)
    warm = "filled" if kernel_cache.is_warm() else "empty: the first start compiles for some seconds"
    return Finding("kernel cache", "ok", f"{folder}, {warm}")


# The port.


def check_port(config: "Config") -> Finding:
    """The engine's port: free, or an engine's already."""
    import socket

    address = f"{config.server.host}:{config.server.port}"
    try:
        family, _, _, _, target = socket.getaddrinfo(
            config.server.host, config.server.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
    except OSError as error:
        return _judge_port(config, address, error)
    return Finding("port", "ok", f"{address} is free")


def _judge_port(config: "Config", address: str, error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE:
        status = ask_engine(config)
        if status in ("ok", "degraded"):
            more = "" if status == "ok" else "; /api/v1/health/detailed says why"
            found = f"{address}: an engine serves there, {status}{more}"
            return Finding("port", "ok", found, "a second engine needs another SERVER_PORT and DATA_DIR")
        if status:
            remedy = "look at its log and at /api/v1/health/detailed"
            return Finding("port", "fail", f"{address}: an engine serves there, {status}", remedy)
    remedies = {
        errno.EADDRINUSE: "end the program that has it, or choose another with SERVER_PORT",
        errno.EACCES: "choose a port above 1023 with SERVER_PORT, and put a proxy before it",
        errno.EADDRNOTAVAIL: "set SERVER_HOST to an address of this machine, or 0.0.0.0 for all",
    }
    remedy = remedies.get(error.errno or 0, "correct SERVER_HOST: a name or an address of this machine")
    return Finding("port", "fail", f"{address}: {error.strerror}", remedy)


def ask_engine(config: "Config") -> str:
    """The status of the engine that has the port: ok, degraded, down; "" when it is no engine."""
    import json
    from http.client import HTTPConnection, HTTPException

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.server.host, config.server.host)  # noqa: S104
    try:
        connection = HTTPConnection(host, config.server.port, timeout=PORT_S)
        try:
            connection.request("GET", "/api/v1/health")
            answer = connection.getresponse()
            body = answer.read(10_000)
        finally:
            connection.close()
        if answer.headers.get("Server") != "tradeback":
            return ""
        return str(json.loads(body)["status"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return ""
