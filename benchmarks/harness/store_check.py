"""What four servers hold against the tape, after a run: complete, and each record once."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import redis

from benchmarks.harness.engine import Engine
from tests.flow.all_servers import Servers
from tests.flow.replaying import joined, trades_of
from tests.sinks.nats_world import check_exactly_once, stretches
from tradeback.model.record import TRADE
from tradeback.tape.reader import TapeReader

PRICES_SECONDS_MAX = 10.0


class Sums(NamedTuple):
    """Of one symbol's trades: how many, and the sums of their ids and of their sequences on the tape."""

    trades: int
    ids: int
    sequences: int


class Entry(NamedTuple):
    """One entry of the Redis stream."""

    epoch: int
    first: int
    last: int


@dataclass
class Compared:
    """What was found: one line per store, and what is wrong."""

    told: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def points_wrong(held: Mapping[str, Sums], wanted: Mapping[str, Sums]) -> list[str]:
    """A point is its symbol and its time, so a trade written twice counts once; two that share a point, one
    that is missing, and one that nobody traded change these sums."""
    names = sorted(set(held) | set(wanted))
    return [
        f"InfluxDB, {name}: {held.get(name)} instead of {wanted.get(name)}"
        for name in names
        if held.get(name) != wanted.get(name)
    ]


def entries_wrong(entries: Sequence[Entry], epoch: int, head: int) -> list[str]:
    """The stream holds the records 1 to `head` of one epoch, each once."""
    wrong, at = [], 1
    for entry in entries:
        if entry.epoch != epoch or entry.first != at:
            wrong.append(f"Redis: {entry} where record {at} of {epoch} should begin")
        at = entry.last + 1
    if at != head + 1:
        wrong.append(f"Redis: the stream ends at record {at - 1}, the tape at {head}")
    return wrong


def values_wrong(what: str, held: Mapping[str, int | None], wanted: Mapping[str, int]) -> list[str]:
    """One number per symbol: the last trade's id, or the symbol's own."""
    names = sorted(set(held) | set(wanted))
    return [
        f"{what} of {name}: {held.get(name)} instead of {wanted.get(name)}"
        for name in names
        if held.get(name) != wanted.get(name)
    ]


def _points(servers: Servers) -> dict[str, Sums]:
    statement = 'SELECT COUNT(id), SUM(id), SUM(sequence) FROM "trades" GROUP BY symbol'
    series = servers.influx.query(statement, servers.name)
    return {each["tags"]["symbol"]: Sums(*each["values"][0][1:]) for each in series}


def _entries(servers: Servers) -> list[Entry]:
    with redis.Redis(host=servers.redis.host, port=servers.redis.port, protocol=2) as client:
        found: Any = client.xrange("ticks")
    return [Entry(*(int(entry[name]) for name in (b"epoch", b"first", b"last"))) for _, entry in found]


def _prices(servers: Servers, last: Mapping[str, int]) -> dict[str, int | None]:
    """The trade of every price; what was put last may be on its way for a tenth of a second."""
    deadline = time.monotonic() + PRICES_SECONDS_MAX
    with redis.Redis(host=servers.redis.host, port=servers.redis.port, protocol=2) as client:
        while True:
            held: Any = client.mget([f"price:{name}" for name in last])
            ids = [None if value is None else int(json.loads(value)["trade_id"]) for value in held]
            found = dict(zip(last, ids, strict=True))
            if found == last or time.monotonic() > deadline:
                return found
            time.sleep(0.05)


def compare(engine: Engine, servers: Servers) -> Compared:
    """Everything that the servers hold, when the sinks have reached the end of the tape."""
    made, reader = Compared(), TapeReader(engine.folder / "data" / "tape")
    ids = {each["symbol"]: int(each["id"]) for each in json.loads(engine.get("/api/v1/symbols")[1])}
    rows = joined(reader)
    wanted, last = {}, {}
    for name, number in ids.items():
        trades = trades_of(rows, number)
        places = np.flatnonzero((rows["kind"] == TRADE) & (rows["symbol_id"] == number))
        if len(trades):
            wanted[name] = Sums(len(trades), int(trades["id"].sum()), int((places + 1).sum()))
            last[name] = int(trades["id"].max())
    held = _points(servers)
    made.wrong += points_wrong(held, wanted)
    entries, prices = _entries(servers), _prices(servers, last)
    made.wrong += entries_wrong(entries, reader.read_with_epoch(1, 1)[0], len(rows))
    made.wrong += values_wrong("Redis, last trade", prices, last)
    registered = servers.mariadb.sql("SELECT symbol, id FROM symbolsmap", servers.name)
    made.wrong += values_wrong("MariaDB, id", {name: int(number) for name, number in registered}, ids)
    found = asyncio.run(stretches(servers.bus))
    try:
        check_exactly_once(found, reader)  # type: ignore[arg-type]  # it reads the tape only
    except AssertionError as error:
        made.wrong.append(f"NATS: {error}")
    trades_wanted, records = sum(each.trades for each in wanted.values()), len(rows)
    made.told += [
        f"InfluxDB {sum(each.trades for each in held.values()):,} of {trades_wanted:,} trades",
        f"Redis {sum(entry.last - entry.first + 1 for entry in entries):,} of {records:,} records and "
        f"{len(prices)} of {len(last)} prices",
        f"NATS {sum(len(each.rows) for each in found):,} of {records:,} records, bit by bit",
        f"MariaDB {len(registered)} of {len(ids)} symbols",
    ]
    return made
