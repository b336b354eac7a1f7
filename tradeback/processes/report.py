"""Numbers and health of one process as JSON for another: what `collect` and `health` yield, and back."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tradeback.ops.health import ComponentHealth
from tradeback.ops.metrics import Family, Histogram


def pack_families(families: Iterable[Family]) -> list[Any]:
    """Families with all their samples."""
    return [
        [held.name, held.kind, held.help, [[dict(labels), _pack(value)] for labels, value in held.samples]]
        for held in families
    ]


def unpack_families(packed: Iterable[Any], **labels: str) -> Iterator[Family]:
    """The families again, every sample with `labels` added."""
    for name, kind, text, samples in packed:
        family = Family(name, kind, text)
        for held, value in samples:
            family.add(_unpack(value), **held, **labels)
        yield family


def pack_health(parts: Iterable[ComponentHealth]) -> list[Any]:
    """Components."""
    return [
        [part.name, part.state, part.since_ns, part.last_error, part.lag, part.details and dict(part.details)]
        for part in parts
    ]


def unpack_health(packed: Iterable[Any]) -> Iterator[ComponentHealth]:
    """The components again."""
    for name, *rest in packed:
        yield ComponentHealth(name, *rest)


def _pack(value: float | Histogram) -> Any:
    if isinstance(value, Histogram):
        return {"bounds": value.bounds.tolist(), "counts": value.counts.tolist(), "sums": value.sums.tolist()}
    return value


def _unpack(value: Any) -> float | Histogram:
    if not isinstance(value, dict):
        return float(value)
    held = Histogram(value["bounds"])
    held.counts[:] = np.array(value["counts"], np.int64)
    held.sums[:] = np.array(value["sums"], np.int64)
    return held
