"""What a page does, counted inside of it: frames, long tasks, trades; and what its browser uses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.browser import Browser, Tab

FRAME_MS_MAX = 50.0
"""A frame that comes later than this after the one before is seen as a jerk."""
PROBE = Path(__file__).with_suffix(".js").read_text("utf-8")


@dataclass(frozen=True)
class Counted:
    """What a page has done in a while."""

    seconds: float
    frames: int
    """Callbacks of requestAnimationFrame: frames for which the page's own thread was free."""
    in_time: int
    """Frames within FRAME_MS_MAX of the one before."""
    longest_ms: float
    tasks: int
    """Tasks of 50 ms and more, and how long they were together."""
    task_ms: float
    trades: int
    lost: list[str]
    """Where the ids of trades did not rise by one, since the probe was put in."""

    @property
    def per_second(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds


async def put_in(tab: Tab) -> None:
    """Begin to look at the trades of a page; frames are counted between `start` and `stop`."""
    await tab.evaluate(PROBE)


async def start(tab: Tab) -> None:
    """Count from now on."""
    await tab.evaluate("probe.start()")


async def stop(tab: Tab) -> Counted:
    """What was counted since `start`."""
    found: dict[str, Any] = await tab.evaluate(f"probe.stop({FRAME_MS_MAX})")
    return Counted(**found)


async def heap_mb(tab: Tab) -> float:
    """Memory that the page's script holds, behind a collection, in MB (2^20 bytes)."""
    await tab.send("HeapProfiler.collectGarbage")
    found = await tab.send("Runtime.getHeapUsage")
    return float(found["usedSize"]) / (1 << 20)


async def browser_cpu_s(running: Browser) -> float:
    """CPU time that all processes of the browser have used, in s."""
    found = await running.send("SystemInfo.getProcessInfo")
    return sum(float(process["cpuTime"]) for process in found["processInfo"])
