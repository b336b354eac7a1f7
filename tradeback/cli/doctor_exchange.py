"""`tradeback doctor`: the exchange. REST, both hosts of the streams, the symbols, the clock."""

import asyncio
from typing import TYPE_CHECKING, Final

from tradeback.cli.doctor import Finding

if TYPE_CHECKING:
    import aiohttp

    from tradeback.model.config import Config

CLOCK_WARN_MS: Final = 500.0
CLOCK_SAMPLES: Final = 5
REACH_TIMEOUT_S: Final = 5.0
UNREACHABLE: Final = "check network, proxy and address; without an exchange try `tradeback demo`"
REFUSALS: Final = {
    403: "the exchange's firewall refuses this address: use another network",
    418: "this address is banned for some time: wait, and make fewer requests",
    429: "too many requests from this address: wait a minute",
    451: "the exchange does not serve the place this address is in: use another endpoint "
    "(EXCHANGE_REST_ENDPOINT, EXCHANGE_WS_ENDPOINT)",
}
"""What to do about an HTTP status."""
SYMBOLS_ASKED_MAX: Final = 200


async def check_exchange(config: "Config") -> list[Finding]:
    """Everything about it."""
    rest, streams = await asyncio.gather(_check_rest(config), _check_streams(config))
    return [*rest, *streams]


async def _check_rest(config: "Config") -> list[Finding]:
    """Reachability, symbols, and the clock's offset with its bound: half of the shortest round trip."""
    import aiohttp

    url = config.exchange.rest_endpoint
    limit = aiohttp.ClientTimeout(total=REACH_TIMEOUT_S)
    check = "exchange REST"
    try:
        async with aiohttp.ClientSession(url, timeout=limit, trust_env=True) as http:
            samples = [await _sample_clock(http) for _ in range(CLOCK_SAMPLES)]
            check = "symbols"
            symbols = await _check_symbols(config, http)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
        remedy = REFUSALS.get(getattr(error, "status", 0), UNREACHABLE)
        fault = Finding(check, "fail", f"{url} cannot be reached: {_reason(error)}", remedy)
        return [fault] if check != "symbols" else [*_judge_clock(url, samples), fault]
    return [*_judge_clock(url, samples), symbols]


def _judge_clock(url: str, samples: list[tuple[float, float]]) -> list[Finding]:
    bound_ms, offset_ms = min(samples)
    reach = Finding("exchange REST", "ok", f"{url} answers in {2 * bound_ms - 1:.1f} ms")
    found = f"{offset_ms:+.1f} ms from the exchange's, known to {bound_ms:.1f} ms"
    if abs(offset_ms) - bound_ms > CLOCK_WARN_MS:
        remedy = "set the clock by NTP; latencies are wrong until then"
        return [reach, Finding("clock", "warn", found, remedy)]
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


async def _check_symbols(config: "Config", http: "aiohttp.ClientSession") -> Finding:
    """Whether the exchange has what is to be followed, and whether the connections suffice for it."""
    from tradeback.exchange.streams import STREAMS
    from tradeback.model.limits import STREAMS_PER_CONNECTION_MAX

    exchange = config.exchange
    shards = -(-len(exchange.symbols) // STREAMS_PER_CONNECTION_MAX)
    wanted = len(STREAMS) * exchange.lines * shards + 1
    if exchange.max_connections < wanted:
        remedy = f"raise EXCHANGE_MAX_CONNECTIONS to {wanted} or more, or set EXCHANGE_LINES to 1"
        found = f"{exchange.max_connections} connections, {wanted} wanted: one more for replacing another"
        return Finding("symbols", "warn", found, remedy)
    if "*" in exchange.symbols:
        return Finding("symbols", "ok", "all that the exchange trades")
    names = list(exchange.symbols[:SYMBOLS_ASKED_MAX])
    states = await _states(http, names)
    missing = [name for name in names if name not in states]
    if missing:
        found = f"the exchange does not have {', '.join(missing[:10])}"
        return Finding("symbols", "fail", found, "correct EXCHANGE_SYMBOLS")
    halted = [name for name in names if states[name] != "TRADING"]
    if halted:
        found = f"{len(names)} known, not trading now: {', '.join(halted[:10])}"
        remedy = "wait; or take them out of EXCHANGE_SYMBOLS, if they are gone for good"
        return Finding("symbols", "warn", found, remedy)
    return Finding("symbols", "ok", f"{len(names)} known to the exchange")


async def _states(http: "aiohttp.ClientSession", names: list[str]) -> dict[str, str]:
    """Name -> state of those that the exchange knows. It refuses a list with an unknown name in it without
    telling which: then each half is asked for."""
    query = {"symbols": "[" + ",".join(f'"{name}"' for name in names) + "]", "showPermissionSets": "false"}
    async with http.get("/api/v3/exchangeInfo", params=query) as answer:
        if answer.status != 400:
            answer.raise_for_status()
            known = (await answer.json())["symbols"]
            return {str(each["symbol"]): str(each["status"]) for each in known}
    if len(names) == 1:
        return {}
    middle = len(names) // 2
    return {**await _states(http, names[:middle]), **await _states(http, names[middle:])}


async def _check_streams(config: "Config") -> list[Finding]:
    """Whether a WebSocket handshake succeeds, on each host that lines go to."""
    from tradeback.exchange.streams import endpoint_of

    exchange = config.exchange
    hosts: dict[str, list[str]] = {}
    for line in range(exchange.lines):
        endpoint = endpoint_of(line, exchange.ws_endpoint, exchange.ws_endpoint_b)
        hosts.setdefault(endpoint, []).append("AB"[line])
    work = (_check_stream(url, names) for url, names in hosts.items())
    return list(await asyncio.gather(*work))


async def _check_stream(url: str, lines: list[str]) -> Finding:
    from picows import WSError, WSListener, ws_connect

    which = f"line {lines[0]}" if len(lines) == 1 else f"lines {' and '.join(lines)}"
    try:
        async with asyncio.timeout(REACH_TIMEOUT_S):
            transport, _ = await ws_connect(WSListener, f"{url}/stream")
            transport.disconnect()
            await transport.wait_disconnected()
    except (WSError, OSError, TimeoutError) as error:
        found = f"{url} ({which}) cannot be reached: {_reason(error)}"
        return Finding("exchange streams", "fail", found, UNREACHABLE)
    return Finding("exchange streams", "ok", f"{url} ({which}) accepts WebSockets")


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {REACH_TIMEOUT_S:.0f} s"
    status = int(getattr(error, "status", 0))
    if status >= 400:
        return f"HTTP {status}"
    if isinstance(error, ValueError | KeyError | TypeError) or status:
        return "it answers, but not like the exchange"
    return str(error) or type(error).__name__
