"""All four servers refuse an engine: it goes on, says once what to do, and uses each once it is mended."""

import json
import secrets
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from tests.cli.running import tradeback
from tests.flow.all_servers import components
from tests.flow.running import Engine, running_market, start_engine, until
from tests.flow.test_all_servers import head_of, more
from tests.servers.fixtures import need
from tests.servers.kinds import MariadbServer, RedisServer
from tests.servers.process import ask
from tests.sinks.drain_wrong_world import ConfiguredNats, GuardedInflux

RIGHT, WRONG = "correct-horse-9", "hunter2-9"
WITHIN_S = 60.0
REMEDIES = {
    "store:registry": "correct MYSQL_USER and MYSQL_PASSWORD",
    "store:latest": "correct REDIS_USER and REDIS_PASSWORD",
    "sink:redis:ticks": "correct REDIS_USER and REDIS_PASSWORD",
    "sink:redis:prices": "correct REDIS_USER and REDIS_PASSWORD",
    "sink:nats:ticks": "write them into NATS_URL",
    "sink:nats:prices": "write them into NATS_URL",
    "bus": "write them into NATS_URL",
    "sink:influx:trades": "set INFLUX_TOKEN to USER:PASSWORD",
    "sink:influx:bars": "set INFLUX_TOKEN to USER:PASSWORD",
}
GUARDED = 'jetstream: {}\nauthorization { users = [ { user: engine, password: "%s" } ] }\n'


async def test_an_engine_whose_servers_all_refuse_it(tmp_path: Path, mariadb_server: MariadbServer) -> None:
    for kind in (RedisServer, GuardedInflux, ConfiguredNats):
        need(kind)
    name = f"wrong_{secrets.token_hex(4)}"
    mariadb_server.sql(f"CREATE USER {name} IDENTIFIED BY '{RIGHT}'; GRANT ALL ON {name}.* TO {name}")
    with (
        RedisServer(tmp_path / "redis") as redis,
        GuardedInflux(tmp_path / "influx") as influx,
        ConfiguredNats(tmp_path / "nats", GUARDED % RIGHT) as nats,
    ):
        influx.make_admin()
        influx.sql(f"CREATE DATABASE {name}", f"CREATE USER engine WITH PASSWORD '{RIGHT}'")
        influx.sql(f"GRANT ALL ON {name} TO engine")
        ask(redis.port, f"ACL SETUSER engine on >{RIGHT} ~* &* +@all\r\n".encode())
        root = {
            "MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(mariadb_server.port), "MYSQL_USER": "root",
            "MYSQL_DATABASE": name,
        }  # fmt: skip
        assert tradeback("migrate", "up", variables=root).returncode == 0
        variables = {
            **root, "MYSQL_USER": name, "MYSQL_PASSWORD": WRONG,
            "REDIS_ADDR": redis.address, "REDIS_USER": "engine", "REDIS_PASSWORD": WRONG,
            "NATS_URL": nats.url.replace("//", f"//engine:{WRONG}@"), "NATS_STREAM_BYTES": "64MiB",
            "INFLUX_URL": influx.url, "INFLUX_API": "v1", "INFLUX_BUCKET": name,
            "INFLUX_TOKEN": f"engine:{WRONG}",
        }  # fmt: skip
        async with running_market(tmp_path, 2, 1_000) as market:
            engine = await start_engine(tmp_path / "data", market.announced, variables)
            try:
                await engine.announcement()
                # A first start has no ids: it says what it waits for, and comes up when that is mended.
                await until(lambda: waits_for(engine, REMEDIES["store:registry"]), "the reason", WITHIN_S)
                mariadb_server.sql(f"ALTER USER {name} IDENTIFIED BY '{WRONG}'")
                await engine.ready()
                # MySQL is mended; sinks of NATS wait some seconds for the bus, which has said it already.
                soon = [key for key in REMEDIES if not key.startswith(("store:registry", "sink:nats"))]
                wrong = {key: REMEDIES[key] for key in soon}
                said: dict[str, Any] = {}
                done = await until(lambda: all_say(engine, wrong, said), "remedies", WITHIN_S, strict=False)
                assert done, said
                await more(engine, 500)
                ask(redis.port, f"ACL SETUSER engine >{WRONG}\r\n".encode())
                nats.reload(GUARDED % WRONG)
                influx.sql(f"SET PASSWORD FOR engine = '{WRONG}'")
                await until(lambda: all_well(engine), "all servers", WITHIN_S)
                head = head_of(engine)
                await until(lambda: reached(engine, head), "what was on the tape before", WITHIN_S)
                await engine.stop()
            finally:
                await engine.kill()
                mariadb_server.sql(f"DROP DATABASE {name}; DROP USER {name}")
    check_log(engine)


async def waits_for(engine: Engine, remedy: str) -> bool:
    return remedy in json.dumps(await not_ready(engine))


async def not_ready(engine: Engine) -> object:
    async with aiohttp.ClientSession(engine.url) as http, http.get("/api/v1/health/ready") as answer:
        assert answer.status == 503
        return await answer.json()


async def all_say(engine: Engine, remedies: dict[str, str], said: dict[str, Any]) -> bool:
    """Each component that cannot work names what to do; those that do not yet go to `said`."""
    found = await components(engine)
    assert WRONG not in json.dumps(found)
    missing = {
        name: found.get(name)
        for name, remedy in remedies.items()
        if name not in found
        or found[name]["state"] in ("ok", "starting")
        or remedy not in (found[name]["last_error"] or "")
    }
    said.clear()
    said.update(missing)
    return not missing


async def all_well(engine: Engine) -> bool:
    found = await components(engine)
    return all(found[name]["state"] == "ok" and not found[name]["last_error"] for name in REMEDIES)


async def reached(engine: Engine, head: int) -> bool:
    found = await components(engine)
    archives = ("sink:redis:ticks", "sink:nats:ticks", "sink:influx:trades")
    return all(found[name]["details"]["position"] >= head for name in archives)


def check_log(engine: Engine) -> None:
    """Nobody has said a secret, or anything twice; the sinks have said each remedy in one line."""
    text = engine.log.read_text()
    assert RIGHT not in text
    assert WRONG not in text
    lines: Counter[tuple[str, ...]] = Counter()
    for line in map(json.loads, text.splitlines()):
        words = f"{line['event']} {line.get('reason', '')}"
        for remedy in set(REMEDIES.values()):
            if remedy in words:
                sinks = line["component"] == "sinks"
                lines[remedy, line["process"], line["component"], "" if sinks else line["event"]] += 1
    assert {remedy for remedy, *_ in lines} == set(REMEDIES.values())
    assert set(lines.values()) == {1}, lines
