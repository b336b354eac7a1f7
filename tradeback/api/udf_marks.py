"""UDF's marks: where trades are missing or were repaired, on the bars and on the time scale (udf.md 7).

/marks points at bars that lack trades now. /timescale_marks tells what happened: a gap where it lies, and
its repair when it came. Both are arrays of objects; the column form would lose shapes.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from aiohttp import web

from tradeback.api.bars import Ask, BarReader
from tradeback.api.context import ServingContext
from tradeback.api.describe import Answer, operation, ref, word
from tradeback.api.errors import json_response
from tradeback.api.udf_shapes import (
    BARS_MAX,
    DAY_S,
    ERRORS,
    find,
    number,
    resolution_index,
    slot_start,
)
from tradeback.api.udf_symbols import SYMBOL
from tradeback.derive.completeness_gap import OPEN, REPAIRED, STATE_NAMES, TRADES, UNREPAIRABLE, Gap
from tradeback.model.symbols import Symbol
from tradeback.stores.gaps_sqlite import GapQuery

GAPS_MAX = 500
DAYS_MAX = 30_000
COLORS = {OPEN: "red", REPAIRED: "green", UNREPAIRABLE: "yellow"}
LABELS = {OPEN: "G", REPAIRED: "G", UNREPAIRABLE: "U"}

RESOLUTION = word(
    "resolution", "of the chart: marks lie on the times of its bars", example="1", required=True
)
FROM = number("from", "unix seconds, inclusive", required=True)
TO = number("to", "unix seconds, exclusive", required=True)
TAKES = (SYMBOL, FROM, TO, RESOLUTION)
Json = dict[str, Any]


class UdfMarks:
    """The handlers, over one context and the reader of bars."""

    def __init__(self, context: ServingContext, bars: BarReader) -> None:
        self._context, self._bars = context, bars

    @operation(
        "Marks on bars that lack trades",
        tag="udf",
        takes=TAKES,
        answers={200: Answer("an array of marks; for an unknown symbol s:error", ref("UdfMarks")), **ERRORS},
    )
    async def marks(self, request: web.Request) -> web.Response:
        """One mark on each bar that an open or unrepairable gap of its trades touches."""
        symbol, from_s, to_s, resolution = self._read(request)
        gaps = await self._gaps(symbol, from_s, to_s, (OPEN, UNREPAIRABLE))
        found: dict[int, list[Gap]] = {}
        times = await self._bar_times(symbol, from_s, to_s, resolution) if gaps else []
        for gap in gaps:
            at = int(np.searchsorted(times, gap_time_s(gap), "right")) - 1
            if gap.stream == TRADES and at >= 0:
                found.setdefault(int(times[at]), []).append(gap)
        return json_response([mark_json(symbol, time_s, held) for time_s, held in sorted(found.items())])

    @operation(
        "Gaps and repairs on the time scale",
        tag="udf",
        takes=TAKES,
        answers={200: Answer("an array of marks; for an unknown symbol s:error", ref("UdfMarks")), **ERRORS},
    )
    async def timescale_marks(self, request: web.Request) -> web.Response:
        """For each gap one mark where it lies, and one when it was repaired."""
        symbol, from_s, to_s, resolution = self._read(request)
        found: list[Json] = []
        for gap in await self._gaps(symbol, from_s, to_s, ()):
            if gap.stream != TRADES:
                continue
            found.append(gap_mark(gap, slot_start(resolution, gap_time_s(gap))))
            if gap.state == REPAIRED:
                found.append(repair_mark(gap, slot_start(resolution, gap.closed_ns // 1_000_000_000)))
        inside = [mark for mark in found if slot_start(resolution, from_s) <= mark["time"] < to_s]
        return json_response(sorted(inside, key=lambda mark: (mark["time"], mark["id"])))

    def _read(self, request: web.Request) -> tuple[Symbol, int, int, str]:
        query = request.query
        from_s, to_s, resolution = FROM.read(query), TO.read(query), RESOLUTION.read(query)
        symbol = find(self._context.symbols, SYMBOL.read(query))
        slot_start(resolution, 0)
        assert from_s is not None
        assert to_s is not None
        return symbol, from_s, to_s, resolution

    async def _gaps(self, symbol: Symbol, from_s: int, to_s: int, states: tuple[int, ...]) -> list[Gap]:
        if self._context.gaps is None or from_s >= to_s:
            return []
        span = from_s * 1_000_000, to_s * 1_000_000
        return await self._context.gaps.find(GapQuery(symbol.id, *span, states, limit=GAPS_MAX))

    async def _bar_times(self, symbol: Symbol, from_s: int, to_s: int, resolution: str) -> Any:
        """The times of the chart's bars: our own, or slots where the chart makes its bars itself."""
        if resolution in ("W", "M", "1W", "1M"):
            days = range(slot_start(resolution, from_s), min(to_s, from_s + DAYS_MAX * DAY_S), DAY_S)
            return sorted({slot_start(resolution, time_s) for time_s in days})
        index = resolution_index(resolution)
        window = await self._bars.window(Ask(symbol, index, from_s, to_s, BARS_MAX, deep=False), wait_s=0.0)
        return window.rows()["slot_us"] // 1_000_000


def gap_time_s(gap: Gap) -> int:
    """Where on the time scale a gap lies: at the last record before it, or when it was noted."""
    return (gap.before_us or gap.opened_ns // 1_000) // 1_000_000


def missing_words(gaps: Iterable[Gap]) -> str:
    """How many trades are missing."""
    total = sum(gap.missing for gap in gaps)
    return f"{total} trade is missing" if total == 1 else f"{total} trades are missing"


def mark_json(symbol: Symbol, time_s: int, gaps: list[Gap]) -> Json:
    """One mark for all gaps of a bar: the chart takes ten of a bar at the most."""
    lost = any(gap.state == UNREPAIRABLE for gap in gaps)
    states = ", ".join(sorted({STATE_NAMES[gap.state] for gap in gaps}))
    return {
        "id": f"{symbol.symbol}-{time_s}",
        "time": time_s,
        "color": COLORS[UNREPAIRABLE if lost else OPEN],
        "text": f"{missing_words(gaps)} ({states})",
        "label": "!",
        "labelFontColor": "black" if lost else "white",
        "minSize": 14,
    }


def gap_mark(gap: Gap, time_s: int) -> Json:
    """A gap where it lies, in the colour of its state."""
    lines = [f"Gap: trades {gap.first_id} to {gap.last_id}", f"State: {STATE_NAMES[gap.state]}"]
    if gap.missing:
        lines.append(missing_words([gap]))
    return {
        "id": f"gap-{gap.first_id}-{gap.last_id}",
        "time": time_s,
        "color": COLORS[gap.state],
        "label": LABELS[gap.state],
        "tooltip": lines,
        "shape": "earningDown",
        "labelFontColor": "black" if gap.state == UNREPAIRABLE else "white",
    }


def repair_mark(gap: Gap, time_s: int) -> Json:
    """The repair of a gap, when it came."""
    seconds = max(0, gap.closed_ns - gap.opened_ns) / 1e9
    return {
        "id": f"repair-{gap.first_id}-{gap.last_id}",
        "time": time_s,
        "color": COLORS[REPAIRED],
        "label": "R",
        "tooltip": [f"Repaired: trades {gap.first_id} to {gap.last_id}", f"after {seconds:.1f} s"],
        "shape": "earningUp",
        "labelFontColor": "white",
    }
