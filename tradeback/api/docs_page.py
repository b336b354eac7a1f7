"""The OpenAPI document as a page to read: HTML without scripts, its style in a file of its own (strict
CSP). Pure.
"""

from collections.abc import Iterator
from html import escape
from typing import Any

import orjson

Json = dict[str, Any]

STYLE = """\
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --link: #0b62c4; }
@media (prefers-color-scheme: dark) { :root { --link: #6cb2ff; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
a { color: var(--link); }
code, pre { font: 14px/1.5 ui-monospace, monospace; }
pre { background: var(--soft); padding: .75rem; overflow-x: auto; border-radius: 6px; }
section { border-top: 1px solid var(--line); padding-top: .5rem; margin-top: 1.5rem; }
h3 { font: 600 17px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
h3 b { display: inline-block; min-width: 4.5rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; }
th, td { border-bottom: 1px solid var(--line); }
td:first-child { white-space: nowrap; }
details { margin: .5rem 0; }
nav ul { columns: 2; list-style: none; padding: 0; }
nav code { overflow-wrap: anywhere; }
@media (max-width: 40rem) { nav ul { columns: 1; } }
"""
TITLES = {
    "market": "Market data", "settlements": "Settlements", "session": "Sessions", "watch": "Market watch",
    "udf": "TradingView datafeed", "health": "Health", "about": "About", "other": "Other",
}  # fmt: skip


def page(document: Json, source: str, style: str) -> str:
    """The whole page; `source` and `style` are the paths of the document and of STYLE."""
    groups = _grouped(document)
    body = "\n".join((*_contents(groups), *_sections(groups), *_schemas(document)))
    info = document["info"]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(info["title"])}: HTTP</title><link rel="stylesheet" href="{escape(style)}"></head>\n'
        f"<body><h1>{escape(info['title'])} {escape(info['version'])}: HTTP</h1>\n"
        f"<p>{escape(info['description'])}</p>\n"
        f'<p>The same for programs: <a href="{escape(source)}">{escape(source)}</a></p>\n'
        f"{body}\n</body></html>\n"
    )


_Groups = dict[str, list[tuple[str, str, Json]]]


def _grouped(document: Json) -> _Groups:
    """Tag -> (method, path, operation)."""
    groups: _Groups = {tag: [] for tag in TITLES}
    for path, methods in document["paths"].items():
        for method, entry in methods.items():
            groups.setdefault(entry["tags"][0], []).append((method.upper(), path, entry))
    return {tag: entries for tag, entries in groups.items() if entries}


def _contents(groups: _Groups) -> Iterator[str]:
    yield "<nav>"
    for tag, entries in groups.items():
        yield f"<h2>{escape(TITLES.get(tag, tag))}</h2><ul>"
        for method, path, entry in entries:
            yield (
                f'<li><a href="#{entry["operationId"]}"><code>{method} {escape(path)}</code></a> '
                f"{escape(entry['summary'])}</li>"
            )
        yield "</ul>"
    yield "</nav>"


def _sections(groups: _Groups) -> Iterator[str]:
    for entries in groups.values():
        for method, path, entry in entries:
            yield f'<section id="{entry["operationId"]}"><h3><b>{method}</b> {escape(path)}</h3>'
            yield f"<p><strong>{escape(entry['summary'])}.</strong> {escape(entry['description'])}</p>"
            if entry["parameters"]:
                yield "<table><tr><th>parameter</th><th>what</th><th>values</th></tr>"
                yield from map(_parameter, entry["parameters"])
                yield "</table>"
            if "requestBody" in entry:
                name = entry["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[
                    2
                ]
                yield f"<p>Body: {_schema_link(name)}</p>"
            yield "<table><tr><th>status</th><th>answer</th><th></th></tr>"
            for status, answer in entry["responses"].items():
                yield _answer(status, answer)
            yield "</table></section>"


def _parameter(param: Json) -> str:
    name = f"<code>{escape(param['name'])}</code>" + (" (needed)" if param["required"] else "")
    place = "in the path" if param["in"] == "path" else escape(param.get("description", ""))
    return f"<tr><td>{name}</td><td>{place}</td><td>{escape(_values(param['schema']))}</td></tr>"


def _values(schema: Json) -> str:
    """A parameter's schema in words."""
    words = [", ".join(map(str, schema["enum"])) if "enum" in schema else str(schema.get("type", ""))]
    if "minimum" in schema and "maximum" in schema:
        words.append(f"{schema['minimum']} to {schema['maximum']}")
    if "default" in schema:
        words.append(f"default {schema['default']}")
    return "; ".join(words)


def _answer(status: str, answer: Json) -> str:
    links = []
    for kind, content in answer.get("content", {}).items():
        target = content["schema"].get("$ref")
        links.append(_schema_link(target.rpartition("/")[2]) if target else f"<code>{escape(kind)}</code>")
    return f"<tr><td>{status}</td><td>{escape(answer['description'])}</td><td>{' '.join(links)}</td></tr>"


def _schema_link(name: str) -> str:
    return f'<a href="#schema-{escape(name)}"><code>{escape(name)}</code></a>'


def _schemas(document: Json) -> Iterator[str]:
    yield "<h2>Shapes</h2>"
    for name, schema in document["components"]["schemas"].items():
        text = orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode()
        yield (
            f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code></summary>'
            f"<pre>{escape(text)}</pre></details>"
        )
