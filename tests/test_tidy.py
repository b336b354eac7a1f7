"""The order of the house: who may import whom, how long things may be, words that mean unfinished."""

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tradeback.version import VERSION

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "tradeback"
SOURCES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted((CHECKOUT / "cmd").glob("*.py"))

FLOORS = (
    ("version", "kernel_cache"),
    ("model",),
    ("ops",),
    ("kernel",),
    ("settings", "wire"),
    ("derive",),
    ("ingest",),
    ("client",),
    ("tape",),
    ("path",),
    ("stores",),
    ("sim",),
    ("exchange",),
    ("recording",),
    ("sinks",),
    ("feed",),
    ("api",),
    ("serving",),
    ("processes",),
    ("parts", "warm", "attached"),
    ("engine", "supervisor"),
    ("replay", "edge"),
    ("cli",),
    ("__main__",),
)
"""Rooms and top-level modules from the ground up; each imports from its own and from lower floors."""

PURE_ROOMS = ("model", "kernel", "ingest", "derive", "wire")
PURE_FILES = (
    "exchange/streams", "exchange/placement", "exchange/backoff", "exchange/budget", "exchange/fragments",
    "exchange/watchdog",
    "feed/interest", "feed/ladder", "feed/passage", "tape/spans",
    *(f"sim/{name}" for name in (
        "bars", "book", "channels", "chart", "clock", "config", "divide", "exchange_info", "fault_frames",
        "fault_play", "fault_rest", "fault_seeds", "faults", "history",
        "instrument", "ladder", "market", "payloads", "periodic", "rhythm", "session", "synthetic_book",
        "text", "trades", "weights",
    )),
)  # fmt: skip
PURE_PACKAGES = {"numpy", "numba", "llvmlite"}
PURE_EXCEPTIONS = {"model/config.py": {"msgspec"}}
"""The configuration's shape needs no socket, loop, file or clock, but a library to state it."""
IMPURE_STDLIB = {
    "asyncio", "concurrent", "ctypes", "http", "io", "logging", "mmap", "multiprocessing", "os", "pathlib",
    "select", "selectors", "shutil", "signal", "socket", "socketserver", "sqlite3", "ssl", "subprocess",
    "tempfile", "threading", "time", "urllib.request",
}  # fmt: skip

FILE_LINES_MAX = 450
FUNCTION_LINES_MAX = 80

LONG_KERNELS = {"read_event": 137}
"""A loop over sixteen locals: cut in pieces it would pass all of them around. It may not grow."""

FLOW_TESTS = {
    "tests/feed/test_slow_readers.py",
    "tests/ingest/test_decode.py",
    "tests/ingest/test_recordings.py",
    "tests/tape/test_cli.py",
    "tests/tape/test_kill.py",
    "tests/web/test_feed.py",
    "tests/web/test_modules.py",
    "tests/web/test_page.py",
    "tests/web/test_wire_v2.py",
}
"""Tests of a whole room, that belong to no single module."""

BANNED = {
    "TO" + "DO": "do it now, or write an issue",
    "FIX" + "ME": "mend it now, or write an issue",
    "XX" + "X": "say what is wrong",
    "NotImplemented" + "Error": "leave out what does not exist",
    "pragma: " + "no cover": "test it, or remove it",
    "breakpoint" + "()": "remove it",
    "except" + ":": "name the error that is expected",
}
MACHINE_PATH = re.compile(r"(?:^|[^a-z.~$}])/(?:work|farm|root|home/[a-z]+|Users)/[a-z.]", re.MULTILINE)
REGISTRIES = re.compile(
    "|".join(("py" + r"pi\.", "pythonhosted" + r"\.", "npm" + r"js\.", "proxy\\." + "golang"))
)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


@functools.cache
def tracked() -> tuple[Path, ...]:
    """Files under version control; all files outside a checkout, as in an unpacked archive."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = (CHECKOUT / name for name in listed.stdout.split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def imports(path: Path) -> Iterator[str]:
    """Absolute names of everything a file imports, at any depth."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor; write the full name"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(name: str) -> str | None:
    """Room or top-level module of an imported name; None outside of tradeback and for the package itself."""
    words = name.split(".")
    return words[1] if words[0] == "tradeback" and len(words) > 1 else None


def floor_of(part: str) -> int:
    return next(index for index, parts in enumerate(FLOORS) if part in parts)


def ids(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def is_pure(path: Path) -> bool:
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] in PURE_ROOMS or str(inside.with_suffix("")) in PURE_FILES


def test_every_part_has_a_floor() -> None:
    known = {part for parts in FLOORS for part in parts}
    found = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in SOURCES}
    assert found - {"__init__"} <= known


def test_what_is_called_pure_is_there() -> None:
    assert [name for name in PURE_FILES if not (PACKAGE / f"{name}.py").is_file()] == []


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_imports_go_downwards(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return
    own = floor_of(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
    names = {part: name for name in imports(path) if (part := part_of(name)) and part != "__version__"}
    upwards = [name for part, name in names.items() if floor_of(part) > own]
    assert upwards == [], "a room imports only from its own and lower floors"


@pytest.mark.parametrize("path", [path for path in SOURCES if is_pure(path)], ids=ids)
def test_pure_modules_import_only_pure_things(path: Path) -> None:
    inside = str(path.relative_to(PACKAGE))
    allowed = PURE_PACKAGES | PURE_EXCEPTIONS.get(inside, set())
    wrong = []
    for name in imports(path):
        top = name.partition(".")[0]
        if top == "tradeback":
            module = PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
            if module.exists() and not is_pure(module):
                wrong.append(name)
        elif {top, ".".join(name.split(".")[:2])} & IMPURE_STDLIB or (
            top not in allowed and not is_stdlib(top)
        ):
            wrong.append(name)
    assert wrong == [], "pure code has no socket, loop, file, clock or log"


def is_stdlib(name: str) -> bool:
    return name in sys.stdlib_module_names


@pytest.mark.parametrize("path", [path for path in SOURCES if is_pure(path)], ids=ids)
def test_pure_modules_do_not_open_files_or_print(path: Path) -> None:
    called = {
        node.func.id
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert called & {"open", "print", "input"} == set()


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_public_things_are_described(path: Path) -> None:
    tree = tree_of(path)
    assert ast.get_docstring(tree), "say what the module is for"
    bare = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert bare == [], "public functions and classes have a docstring"


@pytest.mark.parametrize("path", SOURCES + SCRIPTS, ids=ids)
def test_files_and_functions_are_short(path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= FILE_LINES_MAX, "cut the file where it has two reasons to change"
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    }
    assert {name: size for name, size in long.items() if size > LONG_KERNELS.get(name, 0)} == {}, "cut it"


def test_every_room_test_names_its_module() -> None:
    """tests/<room>/test_<module>.py stands beside tradeback/<room>/<module>.py; a longer name may follow it
    (test_writer_crash.py)."""
    strays = []
    for path in sorted((CHECKOUT / "tests").glob("*/**/test_*.py")):
        room = PACKAGE / path.parent.relative_to(CHECKOUT / "tests")
        if not room.is_dir():
            continue
        words = path.stem.removeprefix("test_").split("_")
        heads = ("_".join(words[:count]) for count in range(len(words), 0, -1))
        if ids(path) not in FLOW_TESTS and not any((room / f"{head}.py").exists() for head in heads):
            strays.append(ids(path))
    assert strays == []


@pytest.mark.parametrize("path", [path for path in tracked() if path.suffix == ".py"], ids=ids)
def test_no_unfinished_words(path: Path) -> None:
    text = path.read_text("utf-8")
    found = {
        word: remedy for word, remedy in BANNED.items() if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)
    }
    assert found == {}


def test_tests_wait_for_events_and_not_for_time() -> None:
    sleep = re.compile(r"(?:time|asyncio)\.sleep\((?:0\.[1-9]|[1-9])")
    sleepy = [
        ids(path)
        for path in tracked()
        if path.match("tests/**/*.py") and sleep.search(path.read_text("utf-8"))
    ]
    assert sleepy == []


def texts() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        try:
            yield path, path.read_text("utf-8")
        except UnicodeDecodeError:
            continue


def test_no_paths_of_one_machine_and_no_registries() -> None:
    wrong = [ids(path) for path, text in texts() if MACHINE_PATH.search(text) or REGISTRIES.search(text)]
    assert wrong == []


def test_scripts_shadow_nothing() -> None:
    """`cmd` with an __init__.py would hide the standard library's cmd, which pdb and pytest need."""
    import importlib.util

    assert not (CHECKOUT / "cmd" / "__init__.py").exists()
    assert [path.stem for path in SCRIPTS if importlib.util.find_spec(path.stem)] == []


def test_the_changelog_names_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (CHECKOUT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == VERSION


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(name for names in extras.values() for name in names)]
    pins = (CHECKOUT / "constraints.txt").read_text("utf-8")
    pinned = {normal(name) for name in re.findall(r"^([\w.-]+)==", pins, re.MULTILINE)}
    names = {normal(re.split(r"[\[<>=~! ]", requirement)[0]) for requirement in wanted}
    assert names <= pinned
    assert "://" not in pins


def normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
