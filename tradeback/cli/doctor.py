"""`tradeback doctor`: is everything there that the engine needs?"""

import asyncio
import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    import aiohttp

    from tradeback.model.config import Config

State = Literal["ok", "warn", "fail"]

SPACE_WARN_BYTES = 2 * 1024**3
CLOCK_WARN_MS = 500.0
CLOCK_SAMPLES = 5
REACH_TIMEOUT_S = 5.0
UNREACHABLE = "check network, proxy and address; without an exchange try `tradeback demo`"
PACKAGES = ("numba", "numpy", "picows", "uvloop", "aiohttp", "orjson", "msgspec")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, and what to do when it is not ok."""

    check: str
    state: State
    found: str
    remedy: str = ""


@click.command(short_help="Check configuration, machine and exchange.")
@click.option(
    "--config", "config_path", metavar="FILE", help="YAML file; otherwise CONFIG_PATH, otherwise defaults."
)
def doctor(config_path: str | None) -> int:
    """Check versions, configuration, limits, disk, port, exchange and clock, with a remedy for each fault.

    Exit code 0 when everything works (warnings count as working), 1 when something fails.

    \b
    Examples:
      tradeback doctor
      tradeback doctor --config configs/mine.yaml
    """
    from tradeback import settings
    from tradeback.model.errors import ConfigError

    findings = [check_versions()]
    try:
        config = settings.load(config_path, os.environ)
    except ConfigError as error:
        findings.append(Finding("configuration", "fail", str(error), "correct it, then ask again"))
    else:
        where = config_path or os.environ.get("CONFIG_PATH") or "defaults and environment"
        findings.append(Finding("configuration", "ok", where))
        findings += check_machine(config)
        findings += asyncio.run(_check_servers(config))
    _print(findings)
    return 1 if any(finding.state == "fail" for finding in findings) else 0


def check_versions() -> Finding:
    """Python and the libraries that matter for speed."""
    from tradeback.version import VERSION

    found = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return Finding("versions", "ok", f"tradeback {VERSION}, Python {platform.python_version()}, {found}")


def check_machine(config: "Config") -> list[Finding]:
    """Limits, folders, port."""
    return [check_files(config), check_data_dir(config), check_cache(), check_port(config)]


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


def check_data_dir(config: "Config") -> Finding:
    """A folder that can be written, or made, with room for the tape."""
    import shutil

    folder = os.path.abspath(config.data_dir)
    existing = folder
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing) or not os.access(existing, os.W_OK | os.X_OK):
        return Finding("data folder", "fail", f"{folder} cannot be written", "choose another with DATA_DIR")
    free = shutil.disk_usage(existing).free
    wanted = config.tape.retention_bytes
    found = f"{folder}, {free / 1024**3:.1f} GiB free, the tape may take {wanted / 1024**3:.1f} GiB"
    if free < config.tape.segment_bytes:
        return Finding(
            "data folder", "fail", found, "free some space, or choose another folder with DATA_DIR"
        )
    if free < min(wanted, SPACE_WARN_BYTES):
        return Finding("data folder", "warn", found, "free some space, or lower TAPE_RETENTION_BYTES")
    return Finding("data folder", "ok", found)


def check_cache() -> Finding:
    """The folder that keeps compiled kernels."""
    from tradeback import kernel_cache

    folder = os.environ.get("NUMBA_CACHE_DIR", "")
    if not folder or not os.access(folder, os.W_OK):
        remedy = "name a folder that can be written with TRADEBACK_CACHE_DIR; each start compiles until then"
        return Finding("kernel cache", "warn", f"{folder or 'no folder'} cannot be written", remedy)
    warm = "filled" if kernel_cache.is_warm() else "empty: the first start compiles for some seconds"
    return Finding("kernel cache", "ok", f"{folder}, {warm}")


def check_port(config: "Config") -> Finding:
    """The engine's port, if nobody has it."""
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
        remedy = "end the program that has it (perhaps a running engine), or choose another with SERVER_PORT"
        return Finding("port", "fail", f"{address}: {error.strerror}", remedy)
    return Finding("port", "ok", f"{address} is free")


async def _check_servers(config: "Config") -> list[Finding]:
    """The exchange, and the stores that are configured."""
    from tradeback.cli.doctor_nats import check_nats
    from tradeback.cli.doctor_redis import check_redis

    exchange, redis, nats = await asyncio.gather(
        check_exchange(config), check_redis(config), check_nats(config)
    )
    return [*exchange, *(found for found in (redis, nats) if found is not None)]


async def check_exchange(config: "Config") -> list[Finding]:
    """REST, clock and streams of the exchange."""
    rest, streams = await asyncio.gather(_check_rest(config), _check_streams(config))
    return [*rest, streams]


async def _check_rest(config: "Config") -> list[Finding]:
    """Reachability, and the clock's offset with its bound: half of the shortest round trip."""
    import aiohttp

    url = config.exchange.rest_endpoint
    try:
        limit = aiohttp.ClientTimeout(total=REACH_TIMEOUT_S)
        async with aiohttp.ClientSession(url, timeout=limit, trust_env=True) as http:
            samples = [await _sample_clock(http) for _ in range(CLOCK_SAMPLES)]
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
        return [Finding("exchange REST", "fail", f"{url} cannot be reached: {_reason(error)}", UNREACHABLE)]
    bound_ms, offset_ms = min(samples)
    reach = Finding("exchange REST", "ok", f"{url} answers in {2 * bound_ms - 1:.1f} ms")
    found = f"{offset_ms:+.1f} ms from the exchange's, known to {bound_ms:.1f} ms"
    if abs(offset_ms) - bound_ms > CLOCK_WARN_MS:
        return [
            reach,
            Finding("clock", "warn", found, "set the clock by NTP; latencies are wrong until then"),
        ]
    return [reach, Finding("clock", "ok", found)]


async def _sample_clock(http: "aiohttp.ClientSession") -> tuple[float, float]:
    """(bound of the error, our clock minus the exchange's) in ms. The exchange cuts its time to whole ms."""
    import time

    begin_ns, steady_ns = time.time_ns(), time.monotonic_ns()
    async with http.get("/api/v3/time") as answer:
        answer.raise_for_status()
        exchange_ms = float((await answer.json())["serverTime"])
    half_ms = (time.monotonic_ns() - steady_ns) / 2e6
    return half_ms + 0.5, begin_ns / 1e6 + half_ms - (exchange_ms + 0.5)


async def _check_streams(config: "Config") -> Finding:
    """Whether a WebSocket handshake succeeds."""
    from picows import WSError, WSListener, ws_connect

    url = config.exchange.ws_endpoint
    try:
        async with asyncio.timeout(REACH_TIMEOUT_S):
            transport, _ = await ws_connect(WSListener, f"{url}/stream")
            transport.disconnect()
            await transport.wait_disconnected()
    except (WSError, OSError, TimeoutError) as error:
        return Finding("exchange streams", "fail", f"{url} cannot be reached: {_reason(error)}", UNREACHABLE)
    return Finding("exchange streams", "ok", f"{url} accepts WebSockets")


def _reason(error: BaseException) -> str:
    if isinstance(error, ValueError | KeyError | TypeError):
        return "it answers, but not like the exchange"
    if isinstance(error, TimeoutError):
        return f"no answer within {REACH_TIMEOUT_S:.0f} s"
    return str(error) or type(error).__name__


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    drawn = Table(show_lines=False)
    for title in ("check", "", "found", "remedy"):
        drawn.add_column(title, overflow="fold")
    for finding in findings:
        state = Text(finding.state, style=colours[finding.state])
        drawn.add_row(finding.check, state, Text(finding.found), Text(finding.remedy))
    Console(width=None if sys.stdout.isatty() else 160).print(drawn)
