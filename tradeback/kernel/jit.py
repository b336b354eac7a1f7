"""How kernels are compiled here, in one place.

Kernels take integer addresses and scalars, never arrays: unboxing ten arrays costs 1.1 us per call,
four integers 0.27 us. Entry points carry an explicit signature, so that they compile when their
module is imported (in a thread, after the port is open) and not at the first tick. No
`inline="always"`: it took the compiler from 3 s to 52 s.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])
_njit: Any = njit  # its stubs do not know the wrapper switches


def helper(function: Function) -> Function:
    """Compile a function that only other kernels call; its types come from the caller.

    Python itself cannot call it: without that wrapper a first ever start is a quarter faster. Tests reach
    it through a small `kernel` of their own.
    """
    compiled = _njit(nogil=True, cache=True, no_cfunc_wrapper=True, no_cpython_wrapper=True)(function)
    return cast(Function, compiled)


def kernel(
    signature: str, *, keep_lock: bool = False, by_address: bool = False
) -> Callable[[Function], Function]:
    """Compile an entry point now, or load it from the cache, for one signature of scalars.

    The interpreter lock is released while it runs, unless `keep_lock`. `by_address`: other kernels call it
    too, see `address`.
    """

    def compile_now(function: Function) -> Function:
        options = {"nogil": not keep_lock, "cache": True, "no_cfunc_wrapper": not by_address}
        return cast(Function, _njit(signature, **options)(function))

    return compile_now


def entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """The compiled entry point of a kernel without numba's dispatcher: 0.14 us a call, not 0.27.

    The caller must pass exactly the signature's types; nothing is checked or converted.
    """
    overloads: dict[Any, Any] = function.overloads  # type: ignore[attr-defined]
    found: Callable[..., Any] = next(iter(overloads.values())).entry_point
    return found


def address(function: Callable[..., Any]) -> int:
    """Where a kernel made `by_address` can be called by other kernels: see `memory.call_3`.

    Valid for this process's lifetime; pass it on as data, never freeze it into a kernel.
    """
    overloads: dict[Any, Any] = function.overloads  # type: ignore[attr-defined]
    compiled = next(iter(overloads.values()))
    found: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)
    return found
