"""The OpenAPI document, made from the routes' own notes (`describe.operation`), and a page to read it.

`/api/v1/openapi.json` is for programs, `/api/v1/docs` for people: plain HTML, no script, nothing asked of
other hosts. A route without a note shows with what is known of it: method, path, the first line of its
description.
"""

import inspect
import re
from typing import Any

from aiohttp import web

from tradeback.api.describe import SAME, Answer, Operation, operation, operation_of, ref
from tradeback.api.docs_page import STYLE, page
from tradeback.api.errors import json_bytes
from tradeback.api.packing import PACKER
from tradeback.api.schemas import SCHEMAS
from tradeback.version import VERSION

Json = dict[str, Any]
DOCUMENT_PATH = "/api/v1/openapi.json"
DOCS_PATH = "/api/v1/docs"
STYLE_PATH = "/api/v1/docs.css"
_HIDDEN = ("/page/", "/{", STYLE_PATH)
"""Files of the page, which nobody calls by hand."""
PATH_PARAMETERS: dict[str, Json] = {
    "symbol": {
        "type": "string",
        "minLength": 1,
        "maxLength": 40,
        "pattern": "^[A-Za-z0-9]+$",
        "examples": ["BTCUSDT"],
    },
    "id": {"type": "string", "minLength": 1, "maxLength": 40, "pattern": "^[A-Za-z0-9_-]+$"},
}
COMMON = {
    401: "a session is needed (auth.mode is required)",
    403: "this session may not see it",
    429: "too many requests; Retry-After says when to come again",
}
"""Answers of every route but those of health."""
WITH_BODY = {408: "the body took too long", 413: "the body is too large"}
"""Answers of every route that changes something, whether it wants a body or not."""


def document(app: web.Application) -> Json:
    """The document of all routes of an application."""
    paths: dict[str, Json] = {}
    for resource in app.router.resources():
        path = resource.canonical
        if path.startswith(_HIDDEN) or "/" not in path:
            continue
        for route in resource:
            if route.method not in ("HEAD", "*", "OPTIONS"):
                paths.setdefault(path, {})[route.method.lower()] = _entry(route.method, path, route.handler)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tradeback",
            "version": VERSION,
            "description": "Market data of one exchange: latest prices, bars, single trades, and what is "
            "missing. The binary feed is a WebSocket at /api/v1/ws, see docs/wire.md.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": SCHEMAS},
    }


def _entry(method: str, path: str, handler: Any) -> Json:
    note = operation_of(handler) or _guess(handler)
    words = inspect.cleandoc(inspect.getdoc(handler) or "")
    names = re.findall(r"\{(\w+)", path)
    answers = dict(note.answers)
    if note.tag != "health":
        error = ref("UdfError" if note.tag == "udf" else "Error")
        common = COMMON if method == "GET" else COMMON | WITH_BODY
        answers |= {status: Answer(about, error) for status, about in common.items() if status not in answers}
    found: Json = {
        "summary": note.summary,
        "description": note.about or words,
        "operationId": _operation_id(method, path),
        "tags": [note.tag],
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": _path_schema(name)} for name in names),
            *(param.describe() for param in note.params),
        ],
        "responses": {str(status): answer.describe() for status, answer in sorted(answers.items())},
    }
    if note.body is not None:
        found["requestBody"] = {
            "required": True, "content": {"application/json": {"schema": note.body}}
        }  # fmt: skip
    return found


def _path_schema(name: str) -> Json:
    return PATH_PARAMETERS.get(name, {"type": "string", "minLength": 1})


def _guess(handler: Any) -> Operation:
    """What can be said of a handler without a note."""
    words = (inspect.getdoc(handler) or "").partition("\n")[0].rstrip(".")
    return Operation(words or "Not described", "other", "", (), {200: Answer("done")}, None)


def _operation_id(method: str, path: str) -> str:
    words = re.findall(r"\w+", path.removeprefix("/api/v1"))
    if not path.startswith(("/api/v1", "/udf")):
        words.insert(0, "root")
    return "_".join([method.lower(), *words]) or method.lower()


class OpenApiRoutes:
    """The document and its page."""

    def __init__(self) -> None:
        self._document = b""
        self._page = b""

    def routes(self) -> list[web.RouteDef]:
        """For `Application.add_routes`."""
        return [
            web.get(DOCUMENT_PATH, self.document),
            web.get(DOCS_PATH, self.page),
            web.get(STYLE_PATH, self.style),
        ]

    @operation(
        "This document", tag="about", answers={200: Answer("OpenAPI 3.1", {"type": "object"}), 304: SAME}
    )
    async def document(self, request: web.Request) -> web.Response:
        """Every route with its parameters and answers."""
        if not self._document:
            self._document = json_bytes(document(request.app))
        return await request.app[PACKER].answer(request, self._document, cache="no-cache")

    @operation(
        "The same to read",
        tag="about",
        answers={200: Answer("HTML", {"type": "string"}, "text/html"), 304: SAME},
    )
    async def page(self, request: web.Request) -> web.Response:
        """A page without scripts."""
        if not self._page:
            self._page = page(document(request.app), DOCUMENT_PATH, STYLE_PATH).encode()
        return await request.app[PACKER].answer(
            request, self._page, cache="no-cache", content_type="text/html"
        )

    async def style(self, request: web.Request) -> web.Response:
        """How the page looks."""
        return await request.app[PACKER].answer(
            request, STYLE.encode(), cache="no-cache", content_type="text/css"
        )
