"""What edges ask of their hub in binary: bars, and the state of the derived series. Numpy rows, compressed.

Both ends are tradeback of the same layout; the sizes of the rows are told, so that another layout is refused.
"""

import zlib
from typing import Final, NamedTuple

import numpy as np
import orjson

from tradeback.derive.layout import BAR, EXCHANGE, NO_FIRST_ID, NO_ID, PART, STATE, Bars, Parts, States
from tradeback.stores.ports import Position, Stored

_LEVEL: Final = 1
_BYTES_MAX: Final = 256 * 1024 * 1024
_ROWS: Final = {"bars": BAR, "states": STATE, "parts": PART}


class StatePart(NamedTuple):
    """The state of some symbols as of `position`; `symbols`: of how many there is one."""

    position: Position
    symbols: int
    states: States
    parts: Parts


def pack_bars(rows: Bars) -> bytes:
    """Closed and complete bars as what the exchange itself would say: EXCHANGE bars without ids."""
    told = rows.copy()
    told["flags"], told["seed_count"] = EXCHANGE, told["trade_count"]
    told["first_id"], told["last_id"], told["boundary_us"] = NO_FIRST_ID, NO_ID, 0
    return _pack({}, {"bars": told})


def unpack_bars(payload: bytes) -> Bars:
    """ValueError when it is none, or an error that the hub answers."""
    _, arrays = _unpack(payload)
    return arrays["bars"]


def pack_state(stored: Stored, first: int, count: int) -> bytes:
    """`count` symbols of a stored state, from the one at index `first` in order of id."""
    states = np.sort(stored.states, order="symbol_id")[first : first + count]
    mine = np.isin(stored.parts["bar"]["symbol_id"], states["symbol_id"])
    head = {
        "epoch": stored.position.epoch,
        "sequence": stored.position.sequence,
        "symbols": len(stored.states),
    }
    return _pack(head, {"states": states, "parts": stored.parts[mine]})


def unpack_state(payload: bytes) -> StatePart:
    """ValueError when it is none, or an error that the hub answers."""
    head, arrays = _unpack(payload)
    position = Position(int(head["epoch"]), int(head["sequence"]))
    return StatePart(position, int(head["symbols"]), arrays["states"], arrays["parts"])


def _pack(head: dict[str, int], arrays: "dict[str, np.ndarray[tuple[int], np.dtype[np.void]]]") -> bytes:
    sizes = {name: (len(rows), rows.dtype.itemsize) for name, rows in arrays.items()}
    body = (
        orjson.dumps({**head, "rows": sizes}) + b"\n" + b"".join(rows.tobytes() for rows in arrays.values())
    )
    return zlib.compress(body, _LEVEL)


def _unpack(payload: bytes) -> "tuple[dict[str, int], dict[str, np.ndarray[tuple[int], np.dtype[np.void]]]]":
    if payload[:1] == b"{":
        raise ValueError(str(orjson.loads(payload).get("error", {}).get("message", "an unknown answer")))
    try:
        body = zlib.decompressobj().decompress(payload, _BYTES_MAX)
        line, _, rest = body.partition(b"\n")
        head = orjson.loads(line)
        arrays = {}
        for name, (count, size) in head["rows"].items():
            if size != _ROWS[name].itemsize:
                raise ValueError(f"{name} of another layout: hub and edge must be of one version")
            if len(rest) < count * size:
                raise ValueError(f"{name} are cut")
            arrays[name] = np.frombuffer(rest[: count * size], _ROWS[name]).copy()
            rest = rest[count * size :]
    except (zlib.error, KeyError, TypeError) as error:
        raise ValueError(f"an answer that is none: {error}") from error
    return head, arrays
