"""Where numba keeps the compiled kernels: a folder named after everything they were compiled from.

numba keys its cache by the file of the cached function only. A cached caller in one module does not
notice that a callee in another module was edited, and goes on returning old results. So the folder
itself is named after a hash of all kernel sources and of the versions that compiled them.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path

KERNEL_ROOMS = ("kernel", "ingest", "derive", "wire")
"""Packages whose functions are compiled. `model` is in none of them: kernels take constants from `kernel`."""

OTHER_KERNELS = ("path/path_kernel.py", "path/follow_kernel.py")
"""Kernels in rooms that are not pure: these call write(2), send(2), pread(2)."""

PREFIX = "kernels-"
"""Begins the names of our folders; a child process finds its parent's in the environment."""

PREPARED = "TRADEBACK_CACHE_PREPARED"
"""Names the cache folder in the environment of a child whose parent, of the same sources, has prepared it."""

KEPT_FOLDERS = 8
"""How many cache folders of earlier sources stay beside the current one."""


def source_hash(package: Path, version: str) -> str:
    """Hash of every source a kernel can be compiled from, with the compiler's versions."""
    digest = hashlib.sha256()
    words = [version, sys.version, metadata.version("numba"), metadata.version("numpy")]
    digest.update("\0".join(words).encode())
    files = [path for room in (*KERNEL_ROOMS, "model", "path") for path in (package / room).glob("*.py")]
    for path in sorted(files):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def base_folder() -> Path:
    """The folder that holds the cache folders; TRADEBACK_CACHE_DIR names another one."""
    named = os.environ.get("TRADEBACK_CACHE_DIR")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "tradeback"


def prepare(version: str) -> Path:
    """Point numba at this version's cache folder, before numba is first imported.

    A folder that cannot be written falls back to one below the system's temporary folder, so that
    a read-only home costs a compilation and never a start.
    """
    named = os.environ.get("NUMBA_CACHE_DIR")
    if named and os.environ.get(PREPARED) == named:
        return Path(named)
    if named and not Path(named).name.startswith(PREFIX):
        return Path(named)  # the user's own choice, and his care
    name = source_hash(Path(__file__).parent, version)
    for base in (base_folder(), Path(tempfile.gettempdir()) / f"tradeback-{os.getuid()}"):
        folder = base / f"{PREFIX}{name}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError):
            continue
        if os.access(folder, os.W_OK):
            os.environ["NUMBA_CACHE_DIR"] = str(folder)
            _drop_old(base, folder)
            return folder
    return Path(tempfile.gettempdir())


def is_warm() -> bool:
    """True when compiled kernels lie in the cache, so that loading takes tenths of a second."""
    folder = os.environ.get("NUMBA_CACHE_DIR")
    return bool(folder) and any(Path(folder or "").rglob("*.nbc"))


def _drop_old(base: Path, current: Path) -> None:
    def age(folder: Path) -> float:
        try:
            return folder.stat().st_mtime
        except OSError:
            return 0.0

    old = sorted((f for f in base.glob(f"{PREFIX}*") if f != current), key=age, reverse=True)
    for folder in old[KEPT_FOLDERS:]:
        shutil.rmtree(folder, ignore_errors=True)
