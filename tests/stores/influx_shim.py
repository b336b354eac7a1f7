"""InfluxDB 2's paths in front of a 1.x server: what is written to /api/v2/write lands there by /write."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer


class Shim:
    """Records what was asked. `token`: any other is refused."""

    def __init__(self, behind: str, token: str = "s3cret") -> None:
        self.behind, self.token = behind, token
        self.buckets: list[str] = []
        self.made: list[dict[str, Any]] = []
        self.writes: list[dict[str, str]] = []
        self.url = ""
        self.refuse: dict[str, tuple[int, str]] = {}
        """Path -> status and message with which it is answered instead."""

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/api/v2/buckets", self._buckets)
        app.router.add_get("/api/v2/orgs", self._orgs)
        app.router.add_post("/api/v2/buckets", self._make)
        app.router.add_post("/api/v2/write", self._write)
        app.router.add_get("/query", self._query)
        return app

    def _refused(self, request: web.Request) -> web.Response | None:
        if request.path in self.refuse:
            status, message = self.refuse[request.path]
            return web.json_response({"code": "refused", "message": message}, status=status)
        if request.headers.get("Authorization") == f"Token {self.token}":
            return None
        return web.json_response({"code": "unauthorized", "message": "unauthorized access"}, status=401)

    async def _buckets(self, request: web.Request) -> web.Response:
        found = [{"name": name} for name in self.buckets if name == request.query["name"]]
        return self._refused(request) or web.json_response({"buckets": found})

    async def _orgs(self, request: web.Request) -> web.Response:
        return self._refused(request) or web.json_response({"orgs": [{"id": "0123", "name": "tradeback"}]})

    async def _make(self, request: web.Request) -> web.Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        asked = await request.json()
        self.made.append(asked)
        self.buckets.append(asked["name"])
        async with ClientSession() as session:
            query = {"q": f'CREATE DATABASE "{asked["name"]}"'}
            await (await session.post(f"{self.behind}/query", params=query)).read()
        return web.json_response({}, status=201)

    async def _write(self, request: web.Request) -> web.Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        if request.query["bucket"] not in self.buckets:
            return web.json_response({"code": "not found", "message": "bucket not found"}, status=404)
        self.writes.append(dict(request.query))
        query = {"db": request.query["bucket"], "precision": request.query["precision"]}
        async with ClientSession() as session:
            answer = await session.post(f"{self.behind}/write", params=query, data=await request.read())
            return web.Response(status=answer.status, body=await answer.read())

    async def _query(self, request: web.Request) -> web.Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        async with ClientSession() as session:
            answer = await session.get(f"{self.behind}/query", params=dict(request.query))
            return web.Response(status=answer.status, body=await answer.read())


@asynccontextmanager
async def shim_before(url: str) -> AsyncIterator[Shim]:
    """A shim that serves."""
    shim = Shim(url)
    async with TestServer(shim.application()) as server:
        shim.url = str(server.make_url("")).rstrip("/")
        yield shim
