"""api/page: immutable files under hashed names, a strict policy, a page also without the chart library."""

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.feed.harness import World, world
from tradeback.api import page

WEB = Path(page.__file__).parent.parent / "web"


@pytest.fixture
async def running() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def ask(running: World, path: str, **headers: str) -> tuple[aiohttp.ClientResponse, bytes]:
    async with (
        aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=("Accept-Encoding",)) as http,
        http.get(
            running.http + path, headers={name.replace("_", "-"): text for name, text in headers.items()}
        ) as answer,
    ):
        return answer, await answer.read()


async def named(running: World) -> list[str]:
    """What the HTML names below /page/."""
    _, body = await ask(running, "/")
    return sorted(set(re.findall(r'"(/page/[^"]+\.[a-z]+)"', body.decode())))


async def test_every_answer_has_a_strict_policy(running: World) -> None:
    for path in ("/", (await named(running))[0]):
        answer, _ = await ask(running, path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe-eval" not in policy
        assert "unsafe-inline" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


async def test_the_page_names_only_files_that_are_there_and_asks_nobody_else(running: World) -> None:
    _, body = await ask(running, "/")
    html = body.decode()
    paths = await named(running)
    assert len(paths) > 10
    for path in paths:
        answer, _ = await ask(running, path)
        assert answer.status == 200, path
    assert "{{" not in html
    sources = re.findall(r'(?:src|href)="([^"]+)"', re.sub(r"<a [^>]*>", "", html))
    assert [source for source in sources if not source.startswith("/page/")] == []
    assert re.findall(r"<script(?![^>]*\bsrc=)[^>]*>", html) == [], "no inline script"
    assert re.findall(r'\son\w+="| style="', html) == [], "nor handler or style"


def test_modules_import_only_each_other() -> None:
    names = {path.name for path in (WEB / "js").glob("*.js")}
    for path in (WEB / "js").glob("*.js"):
        text = path.read_text("utf-8")
        imported = re.findall(r'^import\b[^"]*"([^"]+)"', text, re.MULTILINE)
        assert {one.removeprefix("./") for one in imported} <= names, path
        assert not re.search(r"\beval\(|new Function\(|innerHTML|document\.write", text), path
    assert "url(" not in (WEB / "page.css").read_text("utf-8")


async def test_files_are_for_ever_and_another_version_is_not_found(running: World) -> None:
    path = next(name for name in await named(running) if name.endswith("/js/page.js"))
    answer, body = await ask(running, path)
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert body == (WEB / "js" / "page.js").read_bytes()
    version = path.split("/")[2]
    for wrong in (
        path.replace(version, "0" * len(version)),
        f"/page/{version}/js/none.js",
        f"/page/{version}/index.html",
    ):
        missing, _ = await ask(running, wrong)
        assert missing.status == 404
        assert "Cache-Control" not in missing.headers


@pytest.mark.parametrize(
    "path",
    [
        "/page/{}/../../api/page.py",
        "/page/{}/%2e%2e/page.css",
        "/page/{}/js/..%2fpage.css",
        "/page/{}//etc/passwd",
    ],
)
async def test_nothing_beside_the_page_is_served(running: World, path: str) -> None:
    version = (await named(running))[0].split("/")[2]
    async with aiohttp.ClientSession() as http:
        from yarl import URL

        async with http.get(URL(running.http + path.format(version), encoded=True)) as answer:
            assert answer.status == 404


async def test_packed_for_who_takes_it(running: World) -> None:
    for path in ("/", next(name for name in await named(running) if name.endswith(".css"))):
        plain, body = await ask(running, path)
        assert "Content-Encoding" not in plain.headers
        packed, small = await ask(running, path, Accept_Encoding="br, gzip")
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.headers["Vary"] == "Accept-Encoding"
        assert gzip.decompress(small) == body
        assert len(small) < len(body) / 2
        refused, whole = await ask(running, path, Accept_Encoding="gzip;q=0")
        assert "Content-Encoding" not in refused.headers
        assert whole == body


async def test_who_has_it_already_gets_nothing(running: World) -> None:
    answer, _ = await ask(running, "/")
    assert answer.headers["Cache-Control"] == "no-cache"
    again, body = await ask(running, "/", If_None_Match=answer.headers["ETag"])
    assert (again.status, body) == (304, b"")
    assert again.headers["ETag"] == answer.headers["ETag"]
    other, _ = await ask(running, "/", If_None_Match='"other"')
    assert other.status == 200


async def test_head_tells_the_length(running: World) -> None:
    async with aiohttp.ClientSession() as http, http.head(running.http + "/") as answer:
        assert answer.status == 200
        assert int(answer.headers["Content-Length"]) > 1_000


def test_the_chart_library_is_the_one_that_is_expected() -> None:
    charts = page.find_charts()
    assert charts is not None
    assert b"TradingView Lightweight Charts" in charts[:400]
    loaded = page.load_files()
    assert page.CHARTS_FILE in loaded.files
    assert loaded.version == page.load_files().version


def test_another_library_is_not_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(page, "CHARTS_SHA256", "0" * 64)
    assert page.find_charts() is None
    assert "remedy: pip install" in caplog.text


def test_the_page_does_without_the_library(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(page, "CHARTS_PACKAGE", "no-such-package")
    loaded = page.load_files()
    assert page.CHARTS_FILE not in loaded.files
    assert page.CHARTS_FILE.encode() not in loaded.index.body
    assert "no-such-package is not installed" in caplog.text


def test_it_is_small() -> None:
    """Our part of what a browser fetches the first time: it paints within half a second on a slow line."""
    loaded = page.load_files()
    own = [held for name, held in loaded.files.items() if name != page.CHARTS_FILE]
    assert sum(len(held.packed or held.body) for held in (*own, loaded.index)) < 60_000
