"""Log levels that are changed while processes run: a small file under DATA_DIR that all of them look at.

`tradeback log-level` writes it, whole or not at all. Whoever may write into DATA_DIR may change levels, and
nobody else: nothing of it goes over the network. A process compares the file's time stamp once in a
second, which costs 2 us, and reads it when that has changed; what it says stays until it is taken back, so
that a process that is started again logs as the one before.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from tradeback.ops.beat import until_beat
from tradeback.ops.components import parse_pair

NAME = "log-levels"
LOOK_S = 1.0
BYTES_MAX = 16 * 1024
_HEAD = "# Written by `tradeback log-level`; running processes see a change within a second.\n"


class LevelFile:
    """The file of one data folder."""

    def __init__(self, data_dir: str | Path) -> None:
        self.path = Path(data_dir) / NAME

    def stamp(self) -> tuple[int, int, int] | None:
        """Changes whenever the file does; None: there is none."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def read(self) -> tuple[dict[str, str], list[str]]:
        """Levels by component, and what could not be understood. Raises OSError; no file is no level."""
        try:
            with self.path.open("rb") as file:
                text = file.read(BYTES_MAX).decode("utf-8", "replace")
        except FileNotFoundError:
            return {}, []
        levels, wrong = {}, []
        for line in text.splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                try:
                    component, level = parse_pair(line)
                except ValueError as error:
                    wrong.append(str(error))
                else:
                    levels[component] = level
        return levels, wrong

    def write(self, levels: Mapping[str, str]) -> None:
        """Replace the file in one step, or remove it when nothing is set. Raises OSError."""
        if not levels:
            self.path.unlink(missing_ok=True)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = _HEAD + "".join(f"{component}={level}\n" for component, level in sorted(levels.items()))
        descriptor, name = tempfile.mkstemp(prefix=f".{NAME}-", dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                # The engine may run as another user than the one who changes levels; they are no secret.
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
            os.replace(name, self.path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise


class LevelWatch:
    """Looks at the file as long as the loop runs."""

    def __init__(
        self,
        file: LevelFile,
        on_change: Callable[[dict[str, str]], None],
        on_fault: Callable[[str], None],
        stamp: tuple[int, int, int] | None = None,
    ) -> None:
        """`stamp`: of what is known already. `on_fault` is told of what cannot be read or understood."""
        self._file, self._on_change, self._on_fault = file, on_change, on_fault
        self._stamp = stamp
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look now and from now on. Needs the running loop."""
        self._timer = asyncio.get_running_loop().call_later(until_beat(LOOK_S), self.start)
        self.look()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> None:
        """Take up what has changed since the last look."""
        stamp = self._file.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            levels, wrong = self._file.read()
        except OSError as error:
            self._on_fault(f"{self._file.path}: {error.strerror or error}")
            return
        for words in wrong:
            self._on_fault(f"{self._file.path}: {words}")
        self._on_change(levels)
