"""One child of `tradeback run`, started by its supervisor (see `processes.spawn`), not by users."""

import asyncio
import sys
from collections.abc import Coroutine
from functools import partial
from typing import Any

from tradeback.processes.setup import ENGINE, RECORDER, Setup, take_over


def main(arguments: list[str]) -> int:
    """Take over the setup and play the role. Returns the exit code."""
    try:
        _run(take_over(int(arguments[1])))
    except Exception as error:
        from tradeback.cli.main import run_guarded

        return run_guarded(partial(_raise, error), ["run"])
    return 0


def _raise(error: Exception) -> None:
    raise error


def _run(setup: Setup) -> None:
    import uvloop

    from tradeback.ops import limits, log

    if setup.role == ENGINE:
        limits.favour_loop()
    limits.raise_open_files(setup.config.feed.clients_max + limits.OPEN_FILES_SPARE)
    log.begin(setup.config, setup.name, console=setup.colour or None)
    uvloop.run(_until_told(setup))


async def _until_told(setup: Setup) -> None:
    """Play the role until a signal or the supervisor's end. An error is told to the supervisor, too."""
    from tradeback.cli.race import stop_signals
    from tradeback.ops import log
    from tradeback.ops.race import race
    from tradeback.processes.member import Control

    stopping = stop_signals()
    log.follow_levels()
    control = Control(setup)
    play = _engine if setup.role == ENGINE else _recorder if setup.role == RECORDER else _worker
    work: Coroutine[Any, Any, None] = play(setup, control)
    try:
        await race(work, stopping.wait(), control.gone.wait())
    except Exception as error:  # the boundary of the process: whoever starts it again wants to know why
        control.tell({"words": str(error) or type(error).__name__})
        raise
    finally:
        control.close()


async def _engine(setup: Setup, control: Any) -> None:
    from tradeback.cli.race import show_progress
    from tradeback.engine import Engine
    from tradeback.ops.clock import SystemClock
    from tradeback.processes.hub import Hub

    engine = Engine(setup.config, SystemClock(), Hub(setup, control))
    engine.progress = show_progress
    try:
        await engine.start()
        control.tell({"open": engine.url})
        await engine.wait_stopped()
    finally:
        await engine.stop(restarting=await control.goes_on())


async def _recorder(setup: Setup, control: Any) -> None:
    from tradeback.ops import memory
    from tradeback.ops.log import get_log
    from tradeback.processes.recorder import Recorder

    recorder = Recorder(setup, get_log(setup.name))
    try:
        await recorder.start()
        memory.give_back()
        control.tell({"up": True})
        await recorder.work()
    finally:
        await recorder.stop()


async def _worker(setup: Setup, control: Any) -> None:
    from tradeback.ops import memory
    from tradeback.ops.clock import SystemClock
    from tradeback.ops.log import get_log
    from tradeback.processes.worker import Worker

    worker = Worker(setup, SystemClock(), get_log(setup.name))
    try:
        await worker.start()
        memory.give_back()
        control.tell({"up": True})
        await asyncio.Event().wait()
    finally:
        await worker.stop(restarting=await control.goes_on())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
