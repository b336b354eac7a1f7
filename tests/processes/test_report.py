"""processes/report: numbers and health survive the way through JSON."""

import orjson

from tradeback.ops.exposition import render
from tradeback.ops.health import ComponentHealth
from tradeback.ops.metrics import Family, Histogram
from tradeback.processes.report import pack_families, pack_health, unpack_families, unpack_health


def test_families() -> None:
    histogram = Histogram()
    histogram.observe(42, 3)
    histogram.observe(-1)
    families = [
        Family("some_count", "counter", "text").add(3, kind="a").add(4.5, kind="b"),
        Family("some_time", "histogram", "text").add(histogram),
    ]
    through = list(unpack_families(orjson.loads(orjson.dumps(pack_families(families)))))
    assert render(through) == render(families)
    assert through[1].samples[0][1].sums.tolist() == histogram.sums.tolist()  # type: ignore[union-attr]
    labelled = render(unpack_families(pack_families(families), worker="1")).decode()
    assert 'some_count_total{kind="a",worker="1"} 3.0' in labelled


def test_health() -> None:
    parts = [ComponentHealth("feed", "ok", 5), ComponentHealth("x", "down", 6, "why", 1.5, {"a": 1})]
    through = orjson.loads(orjson.dumps(pack_health(parts)))
    assert list(unpack_health(through)) == parts
