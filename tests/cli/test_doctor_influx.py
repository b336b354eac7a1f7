"""cli.doctor_influx: what is wrong with InfluxDB, told before a start: real 1.x, and 2.x's paths."""

from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.servers.fixtures import need
from tests.servers.kinds import InfluxServer
from tests.servers.process import free_port
from tests.stores.influx_shim import Shim, shim_before
from tradeback.cli.doctor import Finding
from tradeback.cli.doctor_influx import check_influx
from tradeback.model.config import Config, InfluxConfig


async def asked(**influx: Any) -> Finding:
    found = await check_influx(Config(influx=InfluxConfig(**influx)))
    assert found is not None
    return found


async def test_none_is_configured() -> None:
    assert await check_influx(Config()) is None


async def test_version_1(influx_server: InfluxServer) -> None:
    where = {"url": influx_server.url, "api": "v1", "bucket": "doctor_v1"}
    found = await asked(**where)
    assert (found.state, "no database doctor_v1 yet" in found.found) == ("ok", True), found
    assert "doctor_v1" not in str(influx_server.query("SHOW DATABASES")), "a check changes nothing"
    influx_server.query('CREATE DATABASE "doctor_v1"')
    found = await asked(**where)
    assert (found.state, "may be read and written" in found.found) == ("ok", True), found
    assert "version 1." in found.found
    assert influx_server.query("SHOW MEASUREMENTS", "doctor_v1") == []
    influx_server.query('DROP DATABASE "doctor_v1"')


async def test_the_other_dialect(influx_server: InfluxServer) -> None:
    found = await asked(url=influx_server.url, api="v2", token="s3cret")
    assert (found.state, found.remedy) == ("fail", "set INFLUX_API=v1")


@pytest.fixture(scope="module")
def locked_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """A 1.x that asks for a password, with a reader and a database."""
    need(InfluxServer)
    folder = tmp_path_factory.mktemp("locked")
    with InfluxServer(folder) as server:
        server.query("CREATE USER admin WITH PASSWORD 'hunter2-admin' WITH ALL PRIVILEGES")
        server.query("CREATE USER reader WITH PASSWORD 'hunter2-read'")
        server.query('CREATE DATABASE "held"')
        server.query('GRANT READ ON "held" TO "reader"')
    with InfluxServer(folder, env={"INFLUXDB_HTTP_AUTH_ENABLED": "true"}) as server:
        yield server


@pytest.mark.parametrize(
    ("token", "state", "remedy"),
    [
        ("", "fail", "INFLUX_TOKEN"),
        ("admin:hunter2-not", "fail", "INFLUX_TOKEN"),
        ("reader:hunter2-read", "fail", "read and write on held"),
        ("admin:hunter2-admin", "ok", ""),
    ],
)
async def test_credentials_and_rights(
    locked_server: InfluxServer, token: str, state: str, remedy: str
) -> None:
    found = await asked(url=locked_server.url, api="v1", bucket="held", token=token)
    assert (found.state, remedy in found.remedy) == (state, True), found
    assert "hunter2" not in f"{found}"


async def test_version_2(influx_server: InfluxServer) -> None:
    async with shim_before(influx_server.url) as shim:
        where = {"url": shim.url, "api": "v2", "bucket": "doctor_v2"}
        found = await asked(**where, token="s3cret")
        assert (found.state, "no bucket doctor_v2 yet" in found.found) == ("ok", True), found
        assert shim.made == [], "a check changes nothing"
        influx_server.query('CREATE DATABASE "doctor_v2"')
        shim.buckets.append("doctor_v2")
        found = await asked(**where, token="s3cret")
        assert (found.state, "may be read and written" in found.found) == ("ok", True), found
        found = await asked(**where, token="wr0ng")
        assert (found.state, "INFLUX_TOKEN" in found.remedy) == ("fail", True), found
        assert "wr0ng" not in f"{found}"
    influx_server.query('DROP DATABASE "doctor_v2"')


async def test_version_2_without_the_organisation(influx_server: InfluxServer) -> None:
    class Lost(Shim):
        async def _orgs(self, request: web.Request) -> web.Response:
            return web.json_response({"code": "not found", "message": "organization not found"}, status=404)

    async with TestServer(Lost(influx_server.url).application()) as server:
        where = str(server.make_url("")).rstrip("/")
        found = await asked(url=where, api="v2", bucket="doctor_v2", token="s3cret")
    assert (found.state, "INFLUX_ORG" in found.remedy) == ("fail", True), found


async def test_nobody_there() -> None:
    found = await asked(url=f"http://me:hunter2@127.0.0.1:{free_port()}")
    assert (found.state, "cannot be reached" in found.found) == ("fail", True), found
    assert "INFLUX_URL" in found.remedy
    assert "hunter2" not in f"{found}"


async def test_somebody_else() -> None:
    async def anything(request: web.Request) -> web.Response:
        return web.Response(text="<html>hello")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", anything)
    async with TestServer(app) as server:
        found = await asked(url=str(server.make_url("")).rstrip("/"), token="s3cret")
    assert (found.state, found.remedy) == ("fail", "correct INFLUX_URL"), found
