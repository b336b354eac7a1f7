"""How a route says what it takes and answers: read by the route itself, and by the OpenAPI document.

A parameter is one object that parses the query and describes itself, so that neither can say what the other
does not. `@operation` notes on a handler what it is for; `openapi.document` walks the routes of an
application.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from tradeback.api import params

Json = dict[str, Any]
Value = TypeVar("Value")
Handler = TypeVar("Handler", bound=Callable[..., Any])
Query = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Param(Generic[Value]):
    """One parameter of the query."""

    name: str
    about: str
    schema: Json
    parse: Callable[[Query], Value]
    required: bool = False

    def read(self, query: Query) -> Value:
        """Its value. Raises ApiError 400 that names it."""
        return self.parse(query)

    def describe(self) -> Json:
        """Its entry in the OpenAPI document."""
        return {
            "name": self.name,
            "in": "query",
            "required": self.required,
            "description": self.about,
            "schema": self.schema,
        }


def whole(name: str, default: int, largest: int, about: str) -> Param[int]:
    """A whole number from 1 to `largest`."""
    schema = {"type": "integer", "minimum": 1, "maximum": largest, "default": default}
    return Param(name, about, schema, lambda query: params.whole_number(query, name, default, largest))


def seconds(name: str, about: str) -> Param[int | None]:
    """Unix seconds, whole or decimal; read as us."""
    schema = {"type": "number", "minimum": 0, "maximum": params.SECONDS_MAX, "examples": [1_700_000_000]}
    return Param(name, about, schema, lambda query: params.seconds_us(query, name))


def milliseconds(name: str, about: str) -> Param[int | None]:
    """Unix milliseconds."""
    schema = {
        "type": "integer", "minimum": 0, "maximum": 99_999_999_999_999, "examples": [1_700_000_000_000]
    }  # fmt: skip
    return Param(name, about, schema, lambda query: params.milliseconds(query, name))


def choice(name: str, default: str, allowed: Sequence[str], about: str) -> Param[str]:
    """One of a few words; none of them when `default` is empty and it is left away."""
    schema: Json = {"type": "string", "enum": list(allowed)}
    if default:
        schema["default"] = default
    known = (*allowed, *(() if default else ("",)))
    return Param(name, about, schema, lambda query: params.one_of(query, name, default, known))


def word(name: str, about: str, *, example: str = "", required: bool = False) -> Param[str]:
    """Any text; empty when it is left away."""
    schema: Json = {"type": "string", **({"examples": [example]} if example else {})}
    return Param(name, about, schema, lambda query: query.get(name, ""), required)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of an operation."""

    about: str
    schema: Json | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> Json:
        """Its entry in the OpenAPI document."""
        found: Json = {"description": self.about}
        if self.schema is not None:
            found["content"] = {self.content_type: {"schema": self.schema}}
        if self.headers:
            found["headers"] = {
                name: {"description": about, "schema": {"type": "string"}}
                for name, about in self.headers.items()
            }
        return found


SAME = Answer("it is what the client has (If-None-Match)")
"""Of 304."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What is known of one handler."""

    summary: str
    tag: str
    about: str
    params: tuple[Param[Any], ...]
    answers: Mapping[int, Answer]
    body: Json | None


def ref(name: str) -> Json:
    """A schema of `schemas.SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def operation(
    summary: str,
    *,
    tag: str,
    answers: Mapping[int, Answer | str],
    takes: Sequence[Param[Any]] = (),
    body: str = "",
    about: str = "",
) -> Callable[[Handler], Handler]:
    """Note on a handler what it takes and answers.

    `answers`: by status; a text is an error in the one shape. `body`: the name of the schema of its JSON.
    """

    def mark(handler: Handler) -> Handler:
        known = {
            status: Answer(answer, ref("Error")) if isinstance(answer, str) else answer
            for status, answer in answers.items()
        }
        shape = ref(body) if body else None
        note = Operation(summary, tag, about, tuple(takes), known, shape)
        handler.operation = note  # type: ignore[attr-defined]
        return handler

    return mark


def operation_of(handler: object) -> Operation | None:
    """What `operation` has noted; None for a handler without a note."""
    found = getattr(handler, "operation", None)
    return found if isinstance(found, Operation) else None
