"""What answers of `/api/v1/stats` say of the time between them: rates and latencies. Pure.

The page works out the same numbers in `web/js/measure.js`; a test holds both against each other.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Stats = Mapping[str, Any]

LINE_STATES: Final = ("ok", "degraded", "down", "none")
RECENT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Hop:
    """One latency of the time between two answers, in us; None where it is not known."""

    p50_us: float | None
    p99_us: float | None
    error_us: float | None = None
    """How wrong it can be at most, for clocks of two machines. None: they were not compared, or it is one."""
    hidden: bool = False
    """Most messages came before they were sent, by the raw clocks: the figure is no more than a bound."""


@dataclass(frozen=True, slots=True)
class Between:
    """What passed between two answers. Rates are per second, None without an answer before of this engine."""

    messages: float | None
    accepted: float | None
    duplicates: float | None
    exchange_to_engine: Hop
    inside_engine: Hop


def between(before: Stats | None, now: Stats) -> Between:
    """The numbers of the time between two answers; those since the start when there is no `before`."""
    if before is not None and not (
        before["started_at"] == now["started_at"] and now["timestamp"] > before["timestamp"]
    ):
        before = None

    def rate(name: str) -> float | None:
        if before is None:
            return None
        seconds = float(now["timestamp"] - before["timestamp"]) / 1e3
        return max(0.0, float(sum(now[name].values()) - sum(before[name].values()))) / seconds

    def told(name: str) -> tuple[float | None, float | None, int]:
        counts = passed(before[name]["counts"] if before is not None else None, now[name]["counts"])
        bounds = now[name]["bounds_us"]
        return quantile(bounds, counts, 0.5), quantile(bounds, counts, 0.99), sum(counts)

    p50, p99, count = told("exchange_to_engine")
    was = None if before is None else [before["exchange_to_engine"]["ahead"]]
    ahead = passed(was, [now["exchange_to_engine"]["ahead"]])[0]
    offset_us, error_us = 0.0, None
    if now["clock"] is not None:
        offset_us, error_us = 1e3 * now["clock"]["offset_ms"], 1e3 * now["clock"]["error_ms"]
    wire = Hop(moved(p50, offset_us), moved(p99, offset_us), error_us, ahead > 0.5 * count)
    return Between(
        rate("messages"), rate("accepted"), rate("duplicates"), wire, Hop(*told("inside_engine")[:2])
    )


def moved(us: float | None, offset_us: float) -> float | None:
    """A difference of two clocks, corrected by their offset."""
    return None if us is None else us + offset_us


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The quantile of a histogram, interpolated inside its bucket; None when it is empty."""
    total = sum(counts)
    if not total:
        return None
    rank, seen = share * total, 0
    for at, count in enumerate(counts):
        if count and seen + count >= rank:
            low, high = bounds[at - 1] if at else 0.0, bounds[min(at, len(bounds) - 1)]
            return low + (high - low) * max(0.0, rank - seen) / count
        seen += count
    return bounds[-1]


def passed(before: Sequence[int] | None, now: Sequence[int]) -> Sequence[int]:
    """What counters have counted since `before`; all of it when they began anew."""
    if before is None or len(before) != len(now):
        return now
    made = [count - was for count, was in zip(now, before, strict=True)]
    return now if any(count < 0 for count in made) else made


class ClockBound:
    """How far the engine's clock is from this one, by request and answer.

    The engine had the request after it was sent, and answered before the answer was here, so each exchange
    bounds the offset from both sides.
    """

    def __init__(self, most: int = 60) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=most)

    def add(self, sent_ms: float, asked_ms: float, answered_ms: float, received_ms: float) -> None:
        """One exchange, ms since 1970; asked and answered by the engine's clock."""
        self._samples.append((answered_ms - received_ms, asked_ms - sent_ms))

    @property
    def now(self) -> tuple[float, float] | None:
        """(offset, error) in ms: engine minus here, within +- error. None before the first exchange."""
        low, high = float("-inf"), float("inf")
        for index in range(len(self._samples) - 1, -1, -1):
            new_low, new_high = max(low, self._samples[index][0]), min(high, self._samples[index][1])
            if new_low > new_high:
                for _ in range(index + 1):  # a clock was set: what was before says nothing any more
                    self._samples.popleft()
                break
            low, high = new_low, new_high
        return ((low + high) / 2, (high - low) / 2) if self._samples else None


class Recent:
    """Numbers of the last few seconds, and their quantiles."""

    def __init__(self, most: int = 512) -> None:
        self._held: deque[tuple[float, float]] = deque(maxlen=most)

    def add(self, value: float, now_s: float) -> None:
        """One number, and when it was."""
        self._held.append((value, now_s))

    def quantiles(self, shares: Sequence[float], now_s: float) -> list[float | None]:
        """Quantiles of what is not older than RECENT_S; Nones when there is nothing."""
        kept = sorted(value for value, then in self._held if now_s - then <= RECENT_S)
        return [kept[min(len(kept) - 1, int(share * len(kept)))] if kept else None for share in shares]


def line_state(streams: Sequence[Mapping[str, Any]]) -> str:
    """One of LINE_STATES for a line, from those of its streams: all ok, some, none; or it has none."""
    up = sum(stream["state"] == "ok" for stream in streams)
    if not streams:
        return "none"
    return "ok" if up == len(streams) else "degraded" if up else "down"


def first_share(lines: Mapping[str, Sequence[Mapping[str, Any]]]) -> float | None:
    """How often line A was first, 0 to 1; None where there is one line, or nothing came yet."""
    wins = {name: sum(stream.get("wins", 0) for stream in lines.get(name, ())) for name in ("a", "b")}
    total = sum(wins.values())
    return wins["a"] / total if total and lines.get("b") else None
