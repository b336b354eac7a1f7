"""Values that the shell offers at Tab: symbols, users, revisions. Quick, or nothing; and never an error."""

import json
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

ENGINE_S = 0.7
"""How long Tab waits for an engine."""
URL = "http://127.0.0.1:8080"
REGISTRY_FILE = "registry.sqlite"
ANSWER_BYTES_MAX = 8 << 20


def complete_symbols(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Symbols of the engine at --url, otherwise of the registry under DATA_DIR; upper case, each once."""
    named = context.params.get(parameter.name or "") or ()
    given = {str(name).upper() for name in named} if isinstance(named, tuple) else set()
    names = (name for name in sorted(_symbols(context)) if name not in given)
    return _items(names, incomplete.upper())


def complete_symbol_list(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The same for a list with commas: its last word."""
    before, comma, last = incomplete.upper().rpartition(",")
    given = set(before.split(","))
    names = (f"{before}{comma}{name}" for name in sorted(_symbols(context)) if name not in given)
    return _items(names, f"{before}{comma}{last}")


def complete_users(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Users of the registry under DATA_DIR. Those in MySQL are not asked for: Tab has no password."""
    return _items((name for (name,) in _ask_registry("SELECT username FROM users ORDER BY 1")), incomplete)


def complete_revisions(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Revisions of the registry's tables."""
    from tradeback.stores.registry_schema import REVISIONS

    return _items(("base", *REVISIONS), incomplete)


def complete_kinds(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Kinds of tape records."""
    from tradeback.model.record import KIND_NAMES

    return _items(KIND_NAMES.values(), incomplete)


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _symbols(context: click.Context) -> set[str]:
    parameters = {option.name for option in context.command.params}
    found = _ask_engine(str(context.params.get("url") or URL)) if "url" in parameters else []
    names = {str(each.get("symbol", "")) for each in found if isinstance(each, dict)}
    if not names:
        names = {name for (name,) in _ask_registry("SELECT symbol FROM symbolsmap", context)}
    return {name for name in names if name and name.isprintable() and " " not in name}


def _ask_engine(url: str) -> list[Any]:
    """GET /api/v1/symbols, or nothing."""
    from tradeback.cli.login import TOKEN_VARIABLE, bearer, http_url

    base = http_url(url)
    if not base.startswith(("http://", "https://")):
        return []
    headers = bearer(os.environ.get(TOKEN_VARIABLE, "").strip())
    request = urllib.request.Request(f"{base}/api/v1/symbols", headers=headers)  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=ENGINE_S) as answer:  # noqa: S310
            found = json.loads(answer.read(ANSWER_BYTES_MAX))
    except (OSError, ValueError):  # urllib's errors are OSErrors
        return []
    return found if isinstance(found, list) else []


def _ask_registry(statement: str, context: click.Context | None = None) -> list[tuple[Any, ...]]:
    """Rows of the registry's file, or nothing. Never makes or changes it."""
    given = context.params.get("data_dir") if context is not None else None
    path = Path(given or os.environ.get("DATA_DIR") or "data") / REGISTRY_FILE
    if not path.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.2)) as held:
            return held.execute(statement).fetchall()
    except sqlite3.Error:
        return []
