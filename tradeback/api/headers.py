"""Headers that every answer gets: what browsers must not do with it, and which other sites may read it."""

from aiohttp import web

from tradeback.api.origins import Site
from tradeback.api.page import SECURITY_HEADERS

METHODS = "GET, HEAD, POST, PUT, DELETE"
ASKED_HEADERS = "Authorization, Content-Type, If-None-Match"
EXPOSED_HEADERS = "ETag, Last-Trade-Id, Location, Retry-After"
PREFLIGHT_S = 600
SERVER = "tradeback"
"""Without versions: who looks for old ones shall not find them here."""
_OF_HTML = (
    "Content-Security-Policy",
    "X-Frame-Options",
    "Cross-Origin-Opener-Policy",
    "Permissions-Policy",
)
_OF_ALL = ("X-Content-Type-Options", "Referrer-Policy", "Cross-Origin-Resource-Policy")


def protect(response: web.StreamResponse, *, private: bool) -> None:
    """The headers that browsers obey. What a handler has set itself stays.

    `private`: only whom a session names may have it, so no cache that several share may keep it.
    """
    headers = response.headers
    headers["Server"] = SERVER
    for name in _OF_ALL:
        headers.setdefault(name, SECURITY_HEADERS[name])
    if response.content_type == "text/html":
        for name in _OF_HTML:
            headers.setdefault(name, SECURITY_HEADERS[name])
    if private:
        held = headers.get("Cache-Control", "")
        if "no-store" not in held:
            kept = [word for word in map(str.strip, held.split(",")) if word and word != "public"]
            headers["Cache-Control"] = ", ".join(dict.fromkeys(("private", *kept)))


def allow(response: web.StreamResponse, site: Site, origin: str) -> None:
    """CORS: which other site's page may read this."""
    headers = response.headers
    if site is Site.ANYONE:
        headers["Access-Control-Allow-Origin"] = "*"
    elif site is Site.LISTED:
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Allow-Credentials"] = "true"
    else:
        return
    headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS


def vary(response: web.StreamResponse, name: str) -> None:
    """The answer depends on this header of the request."""
    held = response.headers.get("Vary", "")
    if name.lower() not in (word.strip().lower() for word in held.split(",")):
        response.headers["Vary"] = f"{held}, {name}" if held else name


def preflight() -> web.Response:
    """The answer to a browser that asks before it asks; `allow` says whether it may."""
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": ASKED_HEADERS,
            "Access-Control-Max-Age": str(PREFLIGHT_S),
        },
    )
