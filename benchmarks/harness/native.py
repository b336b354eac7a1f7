"""The C helpers: compiled with cc on first use, called through ctypes (which releases the lock)."""

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SOURCES = Path(__file__).parent.parent / "native"
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-shared", "-fPIC")
COMPILE_SECONDS_MAX = 60

Ints = NDArray[np.int64]


class NoCompiler(RuntimeError):
    """There is no C compiler, so a benchmark whose ends or baseline are in C cannot run."""


def compiler() -> list[str]:
    """The command of the C compiler: $CC, else cc, gcc or clang. Raises NoCompiler."""
    named = shlex.split(os.environ.get("CC", ""))
    for command in [named] if named else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            return command
    raise NoCompiler(f"no C compiler ({' '.join(named) or 'cc, gcc, clang'} not found)")


def _folder() -> Path:
    """A folder of this user alone, because what lies in it is loaded as code."""
    folder = Path(tempfile.gettempdir()) / f"tradeback-benchmarks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        return Path(tempfile.mkdtemp(prefix="tradeback-benchmarks-"))
    return folder


def build() -> Path:
    """Compile all of native/ into one shared library; nothing to do when the sources are unchanged."""
    command = [*compiler(), *FLAGS]
    files = sorted(SOURCES.glob("*.[ch]"))
    digest = hashlib.sha256(" ".join(command).encode())
    for file in files:
        digest.update(file.read_bytes())
    library = _folder() / f"ends-{digest.hexdigest()[:16]}.so"
    if library.exists():
        return library
    unfinished = library.with_suffix(f".{os.getpid()}")
    sources = [str(file) for file in files if file.suffix == ".c"]
    made = subprocess.run(
        [*command, "-o", str(unfinished), *sources, "-lm"],
        capture_output=True, text=True, timeout=COMPILE_SECONDS_MAX, check=False,
    )  # fmt: skip
    if made.returncode:
        raise NoCompiler(f"{command[0]} failed: {made.stderr.strip()[:500]}")
    unfinished.rename(library)
    return library


class Layout(ctypes.Structure):
    """Where the digits of a trade frame stand; `struct layout` of wire_ends.h."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            "frame_bytes", "symbols", "first_id", "id_at",
            "price_at", "quantity_at", "event_at", "match_at",
        )
    ]  # fmt: skip


def address(array: NDArray[Any]) -> int:
    """Address of an array's first byte."""
    return int(array.ctypes.data)


def touched(count: int) -> Ints:
    """`count` int64 in memory that has been written to: a first touch while latency is measured would be a
    page fault in it, of the sender, a relay or a receiver."""
    return np.full(count, -1, np.int64)


_I, _P, _D = ctypes.c_int64, ctypes.c_void_p, ctypes.c_double
_FD = ctypes.c_int
_LAYOUT = ctypes.POINTER(Layout)
_SIGNATURES: dict[str, tuple[Any, Sequence[Any]]] = {
    "paced_trades": (_I, (_FD, ctypes.c_char_p, _LAYOUT, _I, _D, _I, _I, _I, ctypes.c_int, _P)),
    "relay": (_I, (_FD, _FD, ctypes.c_int)),
    "receive_relayed": (_I, (_FD, _LAYOUT, _I, _I, _I, _P, _P)),
    "receive_v1": (_I, (_FD, _P, _P, _I, _I, _I, _P, _P, _P)),
    "send_loop": (_I, (_FD, _I, _P, _I, ctypes.c_char_p, _I)),
    "broadcast_rounds": (
        _I, (_FD, ctypes.c_char_p, _LAYOUT, _I, _I, _I, _P, _I, _I, _I, _I, _P, _P),
    ),
    "renumber": (None, (_P, _P, _I)),
    "paced_on_lines": (
        _I, (_P, _I, ctypes.c_char_p, _LAYOUT, _I, _D, _I, _I, _I, _P, ctypes.c_int, _P, _P, _P, _P),
    ),
    "keep_frames": (_I, (_FD, _I, _P, _I, _P, _I, _P)),
}  # fmt: skip


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled helpers with their signatures. Raises NoCompiler."""
    loaded = ctypes.CDLL(str(build()))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype = result
        function.argtypes = list(arguments)
    return loaded
