"""Time limits that hold: also for a library that swallows its cancellation."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from tradeback.model.errors import StoreError

CANCEL_GRACE_S = 0.5
"""How long a cancelled call may take to clean up before it is left to itself."""

_Result = TypeVar("_Result")


class Abandoned(StoreError):
    """A call that did not even end when it was cancelled; it goes on by itself, its result is dropped."""


class BoundedCalls:
    """Runs calls with a time limit. Each call is a task; one that ignores its cancellation is left behind,
    counted in `abandoned`, and referenced until it ends."""

    def __init__(self) -> None:
        self.abandoned = 0
        self._stray: set[asyncio.Task[Any]] = set()

    async def run(self, call: Coroutine[Any, Any, _Result], timeout_s: float, what: str) -> _Result:
        """The call's result. Raises what it raises, or TimeoutError("... (`what` took longer than ...)")."""
        task = asyncio.ensure_future(call)
        try:
            done, _ = await asyncio.wait({task}, timeout=timeout_s)
            if done:
                return task.result()
        except asyncio.CancelledError:
            await self._end(task, what)
            raise
        await self._end(task, what)
        raise TimeoutError(
            f"the server does not answer ({what} took longer than {timeout_s:g} s): "
            "see whether it hangs, or is short of disk or memory"
        )

    async def _end(self, task: "asyncio.Task[Any]", what: str) -> None:
        """Cancel a task and wait for a moment; raises Abandoned when it does not end."""
        if task.done():
            _forget(task)
            return
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=CANCEL_GRACE_S)
        if done:
            _forget(task)
            return
        self.abandoned += 1
        self._stray.add(task)
        task.add_done_callback(self._stray.discard)
        task.add_done_callback(_forget)
        raise Abandoned(f"{what} does not end although it was cancelled")


def _forget(task: "asyncio.Task[Any]") -> None:
    """Look at the outcome, so that asyncio does not complain that nobody did."""
    if not task.cancelled():
        task.exception()
