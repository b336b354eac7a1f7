"""A series store whose writes and reads wait or fail as a test tells them."""

import threading
from pathlib import Path
from typing import Any

from tradeback.derive.layout import Drained
from tradeback.stores.ports import Closed, Position
from tradeback.stores.series_sqlite import SeriesSqlite


class Gate(SeriesSqlite):
    """`open` and `readable` let writers and readers through; `reading` is set once a reader waits."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.open, self.readable, self.reading = (threading.Event() for _ in range(3))
        self.open.set()
        self.readable.set()
        self.broken = False
        self.failing_after = False

    def write(self, drained: Drained, position: Position) -> None:
        self.open.wait(10)
        if self.broken:
            raise OSError("no space left on device")
        super().write(drained, position)
        if self.failing_after:
            raise OSError("connection lost after the commit")

    def closed(self, *ask: Any, **more: Any) -> Closed:
        self.reading.set()
        self.readable.wait(10)
        return super().closed(*ask, **more)
