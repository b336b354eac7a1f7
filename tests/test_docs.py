"""What the documentation names exists: links and anchors, commands with their options, files, metrics."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from benchmarks import __main__ as benchmarks
from tradeback.cli.main import main

CHECKOUT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [
        *CHECKOUT.glob("docs/*.md"),
        CHECKOUT / "README.md",
        CHECKOUT / "benchmarks/README.md",
        CHECKOUT / "CHANGELOG.md",
    ]
)
LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ {0,3}```.*?^ {0,3}```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^(?: {4}|\t).*\n)+", re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"(?:^|[\s/(\"'])tradeback ((?:[a-z][a-z-]*|--[a-z])[^\n|;&#)]*)")
MAKE = re.compile(r"(?:^|[\s`])make ([a-z][a-z-]*)")
MODULE = re.compile(r"python3? -m ([a-z_][\w.]*)((?: [\w./-]+)*)")
FILE = re.compile(r"^(?:[\w.-]+/)+[\w.-]+\.(?:py|js|mjs|md|yaml|c|css|html|sh|json|svg|txt)$")
METRIC = re.compile(r"\btradeback_[a-z0-9_]+[a-z0-9]\b(?!_|\*)")
ROOTS = ("", "tradeback", "tradeback/web", "tests", "benchmarks", "docs")
"""What a path in the text may be relative to."""
NOT_METRICS = {"tradeback_complete", "tradeback_traceback"}
MADE_AT_RUN_TIME = re.compile(r"^(?:data|results|rec|recordings|benchmarks/results)/")


def ids(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def read(path: Path) -> str:
    return path.read_text("utf-8")


def slugs(text: str) -> set[str]:
    """Anchors of the headings, as the usual renderers make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+)$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(SPAN.sub("", FENCE.sub("", read(page)))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in slugs(read(target))):
            broken.append(link)
    assert broken == []


def code_of(text: str) -> Iterator[str]:
    """Code spans, and the lines of code blocks."""
    yield from SPAN.findall(FENCE.sub("", text))
    for block in (*FENCE.findall(text), *INDENTED.findall(FENCE.sub("", text))):
        yield from block.splitlines()


def faults_of(words: list[str]) -> str:
    """What is wrong with a command line behind `tradeback`; empty when nothing is."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            return f"no command {words[0]}"
        command, words = found, words[1:]
    options = {name for param in command.params for name in (*param.opts, *param.secondary_opts)} | {"--help"}
    asked = (word.partition("=")[0] for word in words if re.match("--[a-z]", word))
    unknown = [word for word in asked if word not in options]
    return f"{command.name} has no {', '.join(unknown)}" if unknown else ""


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_and_their_options_exist(page: Path) -> None:
    wrong = []
    for code in code_of(read(page)):
        for line in COMMAND.findall(code):
            try:
                words = shlex.split(line)
            except ValueError:
                words = line.split()
            fault = faults_of([word.strip("[].,:") for word in words])
            if fault:
                wrong.append(f"tradeback {line}: {fault}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_make_targets_and_modules_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read(CHECKOUT / "Makefile"), re.MULTILINE))
    code = "\n".join(code_of(read(page)))
    assert set(MAKE.findall(code)) - targets == set()
    for module, words in MODULE.findall(code):
        assert importlib.util.find_spec(module), module
        if module == "benchmarks":
            named = {word for word in words.split() if word.startswith(("path_", "sizes_"))}
            assert named <= set(benchmarks._paths()), named


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_exist(page: Path) -> None:
    missing = []
    for span in SPAN.findall(FENCE.sub("", read(page))):
        if not FILE.match(span) or MADE_AT_RUN_TIME.match(span):
            continue
        if not any((CHECKOUT / root / span).exists() for root in ROOTS):
            missing.append(span)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_tests_exist(page: Path) -> None:
    missing = []
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", read(page)):
        file = CHECKOUT / path
        if not file.exists() or f"def {name}(" not in read(file):
            missing.append(f"{path}::{name}")
    assert missing == []


def test_metrics_exist() -> None:
    """Each metric that is named in full is made somewhere; what is put together, by its beginning."""
    sources = [
        read(path) for path in (*CHECKOUT.glob("tradeback/**/*.py"), *CHECKOUT.glob("configs/**/*.yaml"))
    ]
    made = {name for text in sources for name in re.findall(r"tradeback_[a-z0-9_]*", text)}
    heads = [name for name in made if name.endswith("_")]
    words = {word for text in sources for word in re.findall(r"\w+", text)}

    def exists(name: str) -> bool:
        plain = re.sub(r"_(?:bucket|sum|count|total)$", "", name)
        return bool({name, plain} & made) or any(
            one.startswith(head) and one.removeprefix(head) in words
            for head in heads
            for one in (name, plain)
        )

    named = {(ids(page), name) for page in PAGES for name in METRIC.findall(read(page))}
    assert [where for where in sorted(named) if where[1] not in NOT_METRICS and not exists(where[1])] == []
