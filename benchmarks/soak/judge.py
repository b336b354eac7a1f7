"""The verdict of a soak: which series must stay flat and how flat, and which counts must be zero. Pure."""

from dataclasses import dataclass
from math import isfinite, nan

from benchmarks.soak.samples import Samples
from benchmarks.soak.trend import Allowed, Trend, is_flat, trend

FLAT, RISES, TOO_SHORT = "flat", "RISES", "too short"
CORES = {"publish:": ("engine",), "client:": ("engine", "clients")}
"""Latencies, and the processes whose waiting for a core they contain."""
CORE_BUSY, CORE_MORE = 10.0, Allowed(1.0)
"""Beyond these a latency that rises says more about the machine than about the engine."""


@dataclass(frozen=True)
class Rule:
    """Series whose name begins with `prefix`, and what they may rise over the second half."""

    prefix: str
    title: str
    unit: str
    allowed: Allowed
    digits: int = 0


RULES = (
    Rule("rss:", "memory (RSS)", "MB", Allowed(2.0, 0.01), 1),
    Rule("pss", "memory of all (PSS)", "MB", Allowed(2.0, 0.01), 1),
    Rule("fds:", "open files", "", Allowed(2.0)),
    Rule("threads:", "threads", "", Allowed(2.0)),
    Rule("tasks:", "asyncio tasks", "", Allowed(3.0)),
    Rule("publish:p99", "receive to publish, p99", "us", Allowed(50.0, 0.25)),
    Rule("client:p99:", "receive to client, p99", "us", Allowed(100.0, 0.25)),
)
"""Descriptors and tasks come and go with connections: so many may be there by chance at the end."""

ZERO = {
    "lost": "trades lost",
    "doubled": "trades doubled",
    "refused": "resumes refused",
    "v1_differs": "places where v1 and v2 differ",
    "aborted": "clients given up by the engine",
    "strange_breaks": "connections lost that nobody cut",
}
"""Counts that must be zero at the end."""


@dataclass(frozen=True)
class Row:
    """One judged series."""

    name: str
    unit: str
    digits: int
    first: float
    middle: float
    last: float
    trend: Trend | None
    allowed: float
    verdict: str
    doubt: str = ""
    """Why a rise may say more about the machine than about the engine."""


@dataclass(frozen=True)
class Verdict:
    """All of it. `wrong`: what is not as it should be, in words; empty when the soak is passed."""

    rows: list[Row]
    wrong: list[str]

    @property
    def passed(self) -> bool:
        """Flat, and nothing lost."""
        return not self.wrong


def judge(samples: Samples, notes: list[str]) -> Verdict:
    """Judge all series by RULES and ZERO; `notes` are faults found elsewhere."""
    rows = [
        _row(rule, name, samples)
        for rule in RULES
        for name in sorted(samples.columns)
        if name.startswith(rule.prefix)
    ]
    wrong = []
    for row in rows:
        if row.verdict == TOO_SHORT:
            wrong.append(f"{row.name} was measured too briefly")
        elif row.verdict == RISES:
            wrong.append(f"{row.name} rises{row.doubt}")
    for name, words in ZERO.items():
        count = samples.last(name)
        if count != 0:
            wrong.append(f"{words}: {count:.0f}" if isfinite(count) else f"{words}: not measured")
    return Verdict(rows, [*wrong, *notes])


def _doubt(samples: Samples, prefix: str) -> str:
    """Why a latency may have risen by no fault of the engine; empty when there is no such reason."""
    for process in next((held for start, held in CORES.items() if prefix.startswith(start)), ()):
        column = samples.columns.get(f"held:{process}", [nan] * len(samples.times))
        found = trend(samples.times, column)
        if found is not None and not (found.level <= CORE_BUSY and is_flat(found, CORE_MORE)):
            waits = f"{found.level:.0f} % of the time, {found.rise:+.0f} in this half"
            return f" (in doubt: {process} waits for a core for {waits})"
    return ""


def _row(rule: Rule, name: str, samples: Samples) -> Row:
    column = samples.columns[name]
    found = trend(samples.times, column)
    measured = [value for value in column if isfinite(value)]
    owner = name.removeprefix(rule.prefix)
    return Row(
        name=f"{rule.title}, {owner}" if owner else rule.title,
        unit=rule.unit,
        digits=rule.digits,
        first=measured[0] if measured else nan,
        middle=found.level if found is not None else nan,
        last=measured[-1] if measured else nan,
        trend=found,
        allowed=rule.allowed.most(found.level) if found is not None else nan,
        verdict=TOO_SHORT if found is None else FLAT if is_flat(found, rule.allowed) else RISES,
        doubt=_doubt(samples, rule.prefix),
    )
