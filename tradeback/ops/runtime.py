"""What a process has going on: asyncio tasks and threads, which must not grow with time, and its log."""

import asyncio
import threading
from collections.abc import Iterator

from tradeback.ops import log
from tradeback.ops.components import LEVELS
from tradeback.ops.metrics import Family


class Runtime:
    """The numbers of the process it is made in, under its name. `collect` on the loop thread."""

    def __init__(self, process: str) -> None:
        """`process`: engine, recorder, worker:0, ..."""
        self._process = process

    def collect(self) -> Iterator[Family]:
        """Tasks of the running loop, the threads that Python knows, lines of the log."""
        tasks = Family("tradeback_tasks", "gauge", "asyncio tasks that have not ended.")
        yield tasks.add(len(asyncio.all_tasks()), process=self._process)
        threads = Family("tradeback_threads", "gauge", "Threads of the interpreter.")
        yield threads.add(threading.active_count(), process=self._process)
        yield from self._collect_log()

    def _collect_log(self) -> Iterator[Family]:
        held = log.delivered()
        lines = Family("tradeback_log_lines", "counter", "Lines logged, by level.")
        for level in LEVELS:
            lines.add(held.lines[level] if held else 0, process=self._process, level=level)
        yield lines
        counts = (
            ("held_back", held.held_back if held else 0, "Events not logged when they came: they repeat."),
            ("lost", held.output.lost if held else 0, "Lines that could not be written: nobody read them."),
        )
        for name, value, text in counts:
            yield Family(f"tradeback_log_{name}", "counter", text).add(value, process=self._process)
