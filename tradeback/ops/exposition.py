"""Metric families as Prometheus text.

The families are plain (ops.metrics); prometheus_client only writes the format. It costs 35 ms to import
and a few ms per scrape of some hundred series, so `render` is called in a thread, on families that
`collect()` gathered on the loop.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from tradeback.ops.metrics import Family, Histogram

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Content-Type of what `render` returns."""


def render(families: Iterable[Family]) -> bytes:
    """The Prometheus text format of `families`; families of one name are joined.

    A histogram counts us and is shown in seconds, as Prometheus wants it. Counters get `_total`.
    """
    from prometheus_client.exposition import generate_latest

    return bytes(generate_latest(_Gathered(_joined(families))))


class _Gathered:
    """What the exposition wants of a registry: something with `collect`."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator["Metric"]:
        for family in self._families:
            yield _metric(family)


def _joined(families: Iterable[Family]) -> list[Family]:
    """One family per name, in the order of first appearance: the format allows each name once."""
    by_name: dict[str, Family] = {}
    for family in families:
        held = by_name.get(family.name)
        if held is None:
            by_name[family.name] = Family(family.name, family.kind, family.help, list(family.samples))
        elif held.kind != family.kind:
            raise ValueError(f"metric {family.name} is both a {held.kind} and a {family.kind}")
        else:
            held.samples.extend(family.samples)
    return list(by_name.values())


def _metric(family: Family) -> "Metric":
    from prometheus_client.metrics_core import Metric

    metric = Metric(family.name, family.help, family.kind)
    suffix = "_total" if family.kind == "counter" else ""
    for labels, value in family.samples:
        if isinstance(value, Histogram):
            _add_histogram(metric, family.name, labels, value)
        else:
            metric.add_sample(family.name + suffix, dict(labels), float(value))
    return metric


def _add_histogram(metric: "Metric", name: str, labels: Mapping[str, str], held: Histogram) -> None:
    """Cumulative buckets with their upper bounds, count and sum, in seconds."""
    running = 0
    for bound, count in zip([*held.bounds.tolist(), None], held.counts.tolist(), strict=True):
        running += count
        le = "+Inf" if bound is None else repr(bound / 1e6)
        metric.add_sample(f"{name}_bucket", {**labels, "le": le}, float(running))
    metric.add_sample(f"{name}_count", dict(labels), float(running))
    metric.add_sample(f"{name}_sum", dict(labels), int(held.sums[0]) / 1e6)
