"""What a process has going on: asyncio tasks and threads. Both must not grow with time."""

import asyncio
import threading
from collections.abc import Iterator

from tradeback.ops.metrics import Family


class Runtime:
    """The numbers of the process it is made in, under its name. `collect` on the loop thread."""

    def __init__(self, process: str) -> None:
        """`process`: engine, recorder, worker:0, ..."""
        self._process = process

    def collect(self) -> Iterator[Family]:
        """Tasks of the running loop, and the threads that Python knows."""
        tasks = Family("tradeback_tasks", "gauge", "asyncio tasks that have not ended.")
        yield tasks.add(len(asyncio.all_tasks()), process=self._process)
        threads = Family("tradeback_threads", "gauge", "Threads of the interpreter.")
        yield threads.add(threading.active_count(), process=self._process)
