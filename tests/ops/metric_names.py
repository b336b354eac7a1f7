"""The conventions of Prometheus for names, units, labels and histograms, as a check of a whole /metrics.

https://prometheus.io/docs/practices/naming and /instrumenting/exposition_formats.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

NAME = re.compile(r"tradeback(_[a-z][a-z0-9]*)+")
LABEL = re.compile(r"[a-z][a-z0-9_]*")
BASE_UNITS = ("seconds", "bytes", "ratio", "info")
OTHER_UNITS = re.compile(
    r"_(ms|us|ns|s|sec|secs|milliseconds|microseconds|minutes|hours|days|kb|mb|gb|kib|mib|gib|kilobytes"
    r"|megabytes|percent|pct)(_|$)"
)
OPTIONAL_LABELS = {"worker"}
"""Added to the numbers of a feed worker; a missing label is the same as an empty one."""
RESERVED = {"le", "quantile", "job", "instance"}


def problems(text: str) -> Iterator[str]:
    """What is wrong with a page of metrics; nothing when all is as it should be."""
    yield from _of_lines(text)
    seen: dict[tuple[str, tuple[tuple[str, str], ...]], int] = defaultdict(int)
    for family in text_string_to_metric_families(text):
        name = family.name
        if not NAME.fullmatch(name):
            yield f"{name}: not lower case words after tradeback_"
        if OTHER_UNITS.search(name):
            yield f"{name}: not a base unit (seconds, bytes)"
        if not family.documentation.strip():
            yield f"{name}: no help"
        if family.type not in ("counter", "gauge", "histogram"):
            yield f"{name}: of type {family.type}"
        if family.type == "counter" and name.endswith("_total_total"):
            yield f"{name}: total twice"
        if family.type == "gauge" and name.endswith(("_total", "_count", "_sum", "_bucket")):
            yield f"{name}: a gauge with the name of a counter"
        if family.type == "histogram" and not name.endswith(("_seconds", "_bytes")):
            yield f"{name}: a histogram without its unit"
        labels = set()
        for sample in family.samples:
            seen[sample.name, tuple(sorted(sample.labels.items()))] += 1
            if family.type == "counter" and not sample.name.endswith("_total"):
                yield f"{sample.name}: a counter without _total"
            own = frozenset(sample.labels) - {"le"} - OPTIONAL_LABELS
            labels.add(own)
            yield from (
                f"{name}: label {label}" for label in own if not LABEL.fullmatch(label) or label in RESERVED
            )
        if len(labels) > 1:
            yield f"{name}: samples with different labels {sorted(map(sorted, labels))}"
        if family.type == "histogram":
            yield from _of_histogram(family)
    yield from (f"{name}{dict(labels)}: {count} times" for (name, labels), count in seen.items() if count > 1)


def _of_lines(text: str) -> Iterator[str]:
    """HELP and TYPE once, before the samples of their family."""
    typed: set[str] = set()
    helped: set[str] = set()
    for line in text.splitlines():
        if not line.startswith("#"):
            name = re.split(r"[{ ]", line, maxsplit=1)[0]
            bare = re.sub(r"_(bucket|count|sum)$", "", name)
            if not {name, bare} & typed:
                yield f"{name}: no TYPE before it"
            if not {name, bare} & helped:
                yield f"{name}: no HELP before it"
            continue
        _, word, name, *_ = line.split(" ", 3)
        held = typed if word == "TYPE" else helped
        if name in held:
            yield f"{name}: {word} twice"
        held.add(name)


def _of_histogram(family: object) -> Iterator[str]:
    """Buckets that rise up to +Inf, equal to the count, and fine enough for p50, p95 and p99."""
    series: dict[tuple[tuple[str, str], ...], dict[str, list[tuple[float, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    name = family.name  # type: ignore[attr-defined]
    for sample in family.samples:  # type: ignore[attr-defined]
        labels = tuple(sorted((key, value) for key, value in sample.labels.items() if key != "le"))
        bound = float(sample.labels.get("le", "nan"))
        series[labels][sample.name.removeprefix(name)].append((bound, sample.value))
    for labels, parts in series.items():
        where = f"{name}{dict(labels)}"
        if set(parts) != {"_bucket", "_count", "_sum"}:
            yield f"{where}: has {sorted(parts)}"
            continue
        bounds = [bound for bound, _ in parts["_bucket"]]
        counts = [count for _, count in parts["_bucket"]]
        if bounds != sorted(set(bounds)) or bounds[-1] != float("inf"):
            yield f"{where}: bounds {bounds}"
        if counts != sorted(counts) or counts[-1] != parts["_count"][0][1]:
            yield f"{where}: counts {counts}"
        finite = bounds[:-1]
        steps = [high / low for low, high in pairwise(finite) if low > 0]
        if max(steps, default=99.0) > 5.01 or len(finite) < 12:
            yield f"{where}: too coarse for quantiles: {finite}"
