"""The page at `/`: its files out of the package, packed once, under names that change with their content.

`/` answers the HTML, which names everything else below `/page/<hash of all files>/`: those answers never
change, so browsers keep them for ever and ask for a new page only once, with its ETag. The chart library
comes out of the package `litecharts`, which is found by its metadata and never imported; a file with
another hash is not served. Without it the page draws a line of its own.
"""

import asyncio
import gzip
import hashlib
import logging
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import files
from importlib.resources.abc import Traversable

from aiohttp import web

from tradeback.api.describe import Answer, operation
from tradeback.api.errors import ApiError
from tradeback.api.packing import accepts_gzip, unchanged

CHARTS_PACKAGE = "litecharts"
CHARTS_FILE = "lightweight-charts.js"
"""How the library is called here."""
CHARTS_SHA256 = "756b0ba9f58930226d6b8b9d47ad310448ab85d799ea1f7c2c02304777c10b52"
"""Of lightweight-charts 5.1.0, standalone, as npm has it."""
CHARTS_STYLE_SHA256 = "3pRED1tOXas1FXFoPb9TGCjmYe9XQsmO9OV23khV2nY="
"""Of the one inline style that it makes (of its logo): all that the policy lets through."""
CHARTS_BYTES_MIN = 100_000
"""The library is the one JavaScript file of its package that is at least as long."""
INDEX = "index.html"
PREFIX = "/page"
HASH_DIGITS = 16
PACK_BYTES_MIN = 400
"""Shorter answers are not worth packing."""
FOR_EVER = "public, max-age=31536000, immutable"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' 'sha256-{CHARTS_STYLE_SHA256}'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}

_log = logging.getLogger("tradeback.api")


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file, as it is and packed; `packed` is None where that saves nothing."""

    content_type: str
    body: bytes
    packed: bytes | None
    etag: str


@dataclass(frozen=True, slots=True)
class PageFiles:
    """All files by name, the version they make together, and the HTML that names them."""

    version: str
    index: PageFile
    files: Mapping[str, PageFile]


class PageRoutes:
    """The handlers. Files are read and packed once, by a thread, at the first request."""

    def __init__(self) -> None:
        self._loading: asyncio.Task[PageFiles] | None = None

    def routes(self) -> list[web.RouteDef]:
        """For `Application.add_routes`."""
        return [web.get("/", self.index), web.get(PREFIX + "/{version}/{name:.+}", self.file)]

    @operation(
        "The page",
        tag="about",
        answers={200: Answer("HTML", {"type": "string"}, "text/html"), 304: Answer("the page is the same")},
    )
    async def index(self, request: web.Request) -> web.Response:
        """The HTML. Asked for each time, answered with 304 while it is the same."""
        found = await self._files()
        return answer(request, found.index, "no-cache")

    async def file(self, request: web.Request) -> web.Response:
        """One file of this version. Another version's is 404: no cache may keep the wrong one for ever."""
        found = await self._files()
        held = found.files.get(request.match_info["name"])
        if held is None or request.match_info["version"] != found.version:
            raise ApiError(404, "not_found", "the page has no such file; load it anew")
        return answer(request, held, FOR_EVER)

    async def version(self) -> str:
        """What the page's files are together called."""
        return (await self._files()).version

    async def _files(self) -> PageFiles:
        if self._loading is None:
            self._loading = asyncio.create_task(asyncio.to_thread(load_files))
        return await asyncio.shield(self._loading)


def answer(request: web.Request, held: PageFile, cache: str) -> web.Response:
    """The file, packed where the client takes that, or 304 when the client has it."""
    # Weak: packed or not, it is the same file.
    tag = f'W/"{held.etag}"'
    headers = {**SECURITY_HEADERS, "Cache-Control": cache, "ETag": tag, "Vary": "Accept-Encoding"}
    if unchanged(request, held.etag):
        return web.Response(status=304, headers=headers)
    body = held.body
    if held.packed is not None and accepts_gzip(request.headers.get("Accept-Encoding", "")):
        headers["Content-Encoding"] = "gzip"
        body = held.packed
    headers["Content-Type"] = held.content_type
    return web.Response(body=body, headers=headers)


def load_files() -> PageFiles:
    """Read, check and pack everything. Blocks for some 20 ms."""
    bodies = dict(_own_files(files("tradeback") / "web", ""))
    index = bodies.pop(INDEX).decode()
    charts = find_charts()
    if charts is not None:
        bodies[CHARTS_FILE] = charts
    digest = hashlib.sha256(index.encode())
    for name in sorted(bodies):
        digest.update(name.encode() + b"\0" + hashlib.sha256(bodies[name]).digest())
    version = digest.hexdigest()[:HASH_DIGITS]
    base = f"{PREFIX}/{version}"
    script = f'<script src="{base}/{CHARTS_FILE}" defer></script>' if charts is not None else ""
    modules = (name for name in sorted(bodies) if name.startswith("js/") and name != "js/theme.js")
    preloads = "\n".join(f'<link rel="modulepreload" href="{base}/{name}">' for name in modules)
    html = index.replace("{{base}}", base).replace("{{charts}}", script).replace("{{modules}}", preloads)
    held = {name: _pack(name, body) for name, body in bodies.items()}
    return PageFiles(version, _pack(INDEX, html.encode()), held)


def _own_files(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _own_files(entry, f"{prefix}{entry.name}/")
        elif "." + entry.name.rpartition(".")[2] in TYPES:
            found.append((prefix + entry.name, entry.read_bytes()))
    return found


def find_charts() -> bytes | None:
    """lightweight-charts out of the installed package; None, and a line in the log, when it is not right."""
    remedy = f"the page draws without it; remedy: pip install '{CHARTS_PACKAGE}'"
    try:
        listed = metadata.files(CHARTS_PACKAGE) or []
    except metadata.PackageNotFoundError:
        _log.warning("%s is not installed: %s", CHARTS_PACKAGE, remedy)
        return None
    for path in listed:
        if path.suffix == ".js" and (path.size or 0) >= CHARTS_BYTES_MIN:
            try:
                body = path.read_binary()
            except OSError as error:
                _log.warning("%s cannot be read (%s): %s", path, error, remedy)
                return None
            if hashlib.sha256(body).hexdigest() == CHARTS_SHA256:
                return body
    _log.warning("%s has another chart library than expected: %s", CHARTS_PACKAGE, remedy)
    return None


def _pack(name: str, body: bytes) -> PageFile:
    suffix = "." + name.rpartition(".")[2]
    kind = TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    packed = gzip.compress(body, 9, mtime=0) if len(body) >= PACK_BYTES_MIN else None
    if packed is not None and len(packed) >= len(body):
        packed = None
    etag = hashlib.sha256(body).hexdigest()[:HASH_DIGITS]
    return PageFile(f"{kind}; charset=utf-8", body, packed, etag)
