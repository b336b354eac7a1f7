"""Lines over time as SVG, with axes and a legend; nothing to load. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10

WIDTH, HEIGHT = 860, 240
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 8, 26
POINTS_MAX = 800
"""More points than pixels show nothing; of neighbours the greatest is drawn, so that no spike is lost."""
COLOURS = ("#2a6fdb", "#d1592b", "#2f9e5b", "#8d4fc4", "#b8860b", "#1c9aa8", "#c2397a", "#6b7280")
TIME_STEPS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 28_800, 86_400)


@dataclass(frozen=True)
class Curve:
    """One line. Values may be NaN: not measured."""

    name: str
    values: Sequence[float]


def ticks(most: float, count: int = 4) -> list[float]:
    """About `count` round numbers from 0 up to the first that is not below `most`."""
    if not isfinite(most) or most <= 0:
        return [0.0, 1.0]
    raw = most / count
    power = 10.0 ** floor(log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    found = [0.0]
    while found[-1] < most * (1 - 1e-9):
        found.append(step * len(found))
    return found


def decades(least: float, most: float) -> list[float]:
    """Powers of ten from at most `least` to at least `most`, two at the least."""
    if not (isfinite(least) and isfinite(most)) or least <= 0:
        return [1.0, 10.0]
    first = floor(log10(least))
    return [10.0**power for power in range(first, max(first + 1, ceil(log10(most))) + 1)]


def number(value: float) -> str:
    """A figure at an axis: 1,500 or 0.25."""
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.2g}"


def duration(seconds: float) -> str:
    """90 s, 5 min, 2.5 h."""
    if seconds < 120:
        return f"{seconds:g} s"
    return f"{seconds / 60:g} min" if seconds < 7_200 else f"{seconds / 3_600:g} h"


def thinned(
    times: Sequence[float], values: Sequence[float], most: int = POINTS_MAX
) -> list[tuple[float, float]]:
    """What was measured, at most `most` points: of every group the greatest value, at its own time."""
    points = [point for point in zip(times, values, strict=True) if isfinite(point[1])]
    size = max(1, -(-len(points) // most))
    return [
        max(points[start : start + size], key=lambda point: point[1]) for start in range(0, len(points), size)
    ]


def chart(times: Sequence[float], curves: Sequence[Curve], *, logarithmic: bool = False) -> str:
    """An <svg> of all curves over one time axis, from 0 up, or logarithmic; the second half is marked."""
    measured = [value for curve in curves for value in curve.values if isfinite(value)]
    most = max(measured, default=0.0)
    if logarithmic:
        steps = decades(min((value for value in measured if value > 0), default=0.0), most)
    else:
        steps = ticks(most)
    end = max(times[-1] if times else 0.0, 1e-9)
    begin = min(times[0] if times else 0.0, end)
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(time: float) -> float:
        return LEFT + wide * (time - begin) / max(end - begin, 1e-9)

    def y(value: float) -> float:
        share = value / steps[-1]
        if logarithmic:
            share = log10(max(value, steps[0]) / steps[0]) / log10(steps[-1] / steps[0])
        return TOP + high * (1 - share)

    middle = x((begin + end) / 2)
    judged = f'x="{middle:.1f}" y="{TOP}" width="{LEFT + wide - middle:.1f}" height="{high}"'
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><rect class="judged" {judged}/>']
    for step in steps:
        at = f"{y(step):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + wide}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="y" x="{LEFT - 6}" y="{y(step) + 4:.1f}">{number(step)}</text>')
    for time in _times(begin, end):
        parts.append(f'<text class="x" x="{x(time):.1f}" y="{HEIGHT - 8}">{duration(time)}</text>')
    for place, curve in enumerate(curves):
        points = [f"{x(time):.1f},{y(value):.1f}" for time, value in thinned(times, curve.values)]
        if points:
            drawn = f'points="{" ".join(points)}" stroke="{COLOURS[place % len(COLOURS)]}"'
            parts.append(f"<polyline {drawn}><title>{escape(curve.name)}</title></polyline>")
    return "".join(parts) + "</svg>" + _legend(curves)


def _times(begin: float, end: float) -> list[float]:
    step = next((step for step in TIME_STEPS_S if (end - begin) / step <= 8), TIME_STEPS_S[-1])
    return [float(step * count) for count in range(int(begin // step) + 1, int(end // step) + 1)]


def _legend(curves: Sequence[Curve]) -> str:
    entries = [
        f'<span><i style="background:{COLOURS[place % len(COLOURS)]}"></i>{escape(curve.name)}</span>'
        for place, curve in enumerate(curves)
    ]
    return f'<p class="legend">{"".join(entries)}</p>'
