"""api.packing: tags, 304, gzip by another thread and only while it keeps up."""

import asyncio
import gzip

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.feed.harness import fronted
from tradeback.api import packing
from tradeback.api.packing import PACKER, Packer, accepts_gzip


def app_of(bodies: dict[str, bytes], packer: Packer) -> web.Application:
    app = web.Application()
    app[PACKER] = packer
    app.on_cleanup.append(packer.close)

    async def answer(request: web.Request) -> web.Response:
        return await request.app[PACKER].answer(request, bodies[request.match_info["name"]])

    app.router.add_get("/{name}", answer)
    return app


@pytest.mark.parametrize(
    ("header", "expected"),
    [("gzip", True), ("deflate, GZIP;q=0.5", True), ("*", True), ("", False), ("identity", False),
     ("gzip;q=0", False), ("*;q=0", False), ("gzip;q=0, *", False), ("br", False)],
)  # fmt: skip
def test_who_takes_gzip(header: str, expected: bool) -> None:
    assert accepts_gzip(header) is expected


@given(st.text(max_size=60))
def test_any_header_is_read(header: str) -> None:
    assert accepts_gzip(header) in (True, False)


async def test_small_bodies_go_as_they_are_and_large_ones_packed() -> None:
    packer = Packer()
    bodies = {"small": b"x" * 100, "large": b"[1,2,3]" * 10_000}
    async with fronted(app_of(bodies, packer)) as url, aiohttp.ClientSession(auto_decompress=False) as http:
        headers = {"Accept-Encoding": "gzip"}
        async with http.get(f"{url}/small", headers=headers) as answer:
            assert await answer.read() == bodies["small"]
        tags = set()
        for _ in range(3):
            async with http.get(f"{url}/large", headers=headers) as answer:
                assert gzip.decompress(await answer.read()) == bodies["large"]
                tags.add(answer.headers["ETag"])
        assert packer.packed == 1, "what was packed is kept"
        (tag,) = tags
        for known in (tag, "*", f'"other", {tag}'):
            async with http.get(f"{url}/large", headers={"If-None-Match": known}) as answer:
                assert answer.status == 304
        for unknown in ('"other"', "garbage", ""):
            async with http.get(f"{url}/large", headers={"If-None-Match": unknown}) as answer:
                assert answer.status == 200


async def test_while_the_thread_is_busy_answers_go_out_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "WAITING_MAX", 0)
    packer = Packer()
    async with (
        fronted(app_of({"large": b"x" * 50_000}, packer)) as url,
        aiohttp.ClientSession() as http,
        http.get(f"{url}/large") as answer,
    ):
        assert "Content-Encoding" not in answer.headers
        assert packer.skipped == 1


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "KEPT_BYTES_MAX", 300)
    packer = Packer()
    bodies = {str(number): bytes([number]) * 50_000 for number in range(20)}
    async with fronted(app_of(bodies, packer)) as url, aiohttp.ClientSession() as http:
        for name, body in bodies.items():
            async with http.get(f"{url}/{name}") as answer:
                assert await answer.read() == body
        assert packer._kept_bytes <= 300
        assert len(packer._kept) < 20
    await asyncio.sleep(0)
