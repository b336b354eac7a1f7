"""Send one buffer to many sockets: the C library's send(2) in a compiled loop without the interpreter lock.

Only for plain TCP sockets whose transport holds nothing back, or bytes would overtake each other.
"""

from typing import Any

from numba import types

from tradeback.kernel.jit import kernel
from tradeback.kernel.memory import load_32, store_64

_send: Any = types.ExternalFunction("send", types.int64(types.int32, types.int64, types.int64, types.int32))
_FLAGS = 0x40 | 0x4000  # MSG_DONTWAIT | MSG_NOSIGNAL, Linux

REST_WORDS = 2
"""Per socket that did not take all: its index in `fds`, and the bytes it took (-1: none, an error)."""


@kernel("int64(int64,int64,int64,int64,int64)")
def send_all(fds: Any, n: Any, data: Any, size: Any, rest: Any) -> Any:
    """Send `size` bytes at `data` to each of `n` sockets (int32 at `fds`).

    Returns how many did not take all of it; they stand at `rest`, int64[n][REST_WORDS].
    """
    count = 0
    for index in range(n):
        sent = _send(load_32(fds + 4 * index), data, size, _FLAGS)
        if sent != size:
            store_64(rest + 16 * count, index)
            store_64(rest + 16 * count + 8, sent)
            count += 1
    return count
