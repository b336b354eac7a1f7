"""What a tape folder remembers beside its segments: the lock, the epochs, and how the last session ended."""

import fcntl
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from tradeback.model.errors import StartupError
from tradeback.tape.segment import replace_file

VERSION: Final = 1
STATE_NAME: Final = "state.json"
LOCK_NAME: Final = "lock"
BOOT_ID_PATH: Final = Path("/proc/sys/kernel/random/boot_id")


class _Version(msgspec.Struct):
    version: int


class State(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Content of state.json; replaced atomically."""

    version: int = VERSION
    epoch: int
    """The epoch in which the next record will stand."""
    epochs: tuple[tuple[int, int], ...]
    """Every epoch of the folder's life with its first sequence, oldest first."""
    boot_id: str
    """Which start of the machine the last session ran on; empty when the system does not tell."""
    clean: bool
    """The last session ended by `close`, with everything synced."""
    synced_before: int
    """Every record with a lower sequence lies in a sealed segment that has been synced to the disk."""


def load_state(folder: Path) -> State | None:
    """The state of `folder`, or None when there is none that can be understood.

    Raises StartupError when a newer version of the format wrote it.
    """
    try:
        raw = (folder / STATE_NAME).read_bytes()
        version = msgspec.json.decode(raw, type=_Version).version
        if version > VERSION:
            raise StartupError(
                f"the tape in {folder} has format version {version}, this program knows {VERSION}: "
                "install the newer tradeback, or set DATA_DIR to another folder"
            )
        return msgspec.json.decode(raw, type=State)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def save_state(folder: Path, state: State) -> None:
    """Replace state.json durably. Raises OSError."""
    replace_file(folder / STATE_NAME, msgspec.json.format(msgspec.json.encode(state)) + b"\n")


def boot_id() -> str:
    """The machine's boot id, or "" when it cannot be told."""
    try:
        return BOOT_ID_PATH.read_text().strip()
    except OSError:
        return ""


def new_epoch(used: Iterable[int]) -> int:
    """A random non-zero u32 that is none of `used`."""
    taken = {0, *used}
    epoch = 0
    while epoch in taken:
        epoch = secrets.randbits(32)
    return epoch


def lock_folder(folder: Path) -> int:
    """Create `folder` if needed and lock it for one writer; returns the lock's descriptor.

    Raises StartupError, with the remedy, when the folder cannot be written or has a writer already.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise StartupError(
            f"the tape in {folder} is being written by another process (pid {holder}): "
            "stop that one, or set DATA_DIR to another folder"
        ) from error
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise unwritable(folder, error) from error
    return descriptor


def unwritable(folder: Path, error: OSError) -> StartupError:
    """The refusal to start on a folder that cannot be written."""
    return StartupError(
        f"the tape's folder {folder} cannot be written ({error.strerror}): "
        "free space or fix its permissions, or set DATA_DIR to a folder that this user may write"
    )
