"""The report of a soak: one HTML file that needs nothing else, and the same table for the terminal. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite

from benchmarks.soak.judge import FLAT, Row, Verdict
from benchmarks.soak.plot import Curve, chart
from benchmarks.soak.samples import Samples

HEAD = ("series", "first", "middle", "last", "rise", "per hour", "allowed", "verdict")
COUNTS = (
    ("events", "events that a v2 client took"),
    ("trades", "trades checked by id, all v2 clients"),
    ("v1_compared", "trades compared between v1 and v2"),
    ("v1_conflated", "v1 entries for several trades"),
    ("breaks", "connections dropped on purpose"),
    ("resumed", "resumes served"),
    ("repaired", "trades repaired by REST"),
    ("stood_in", "trades stood in for"),
    ("unrepairable", "trades that the exchange has not"),
    ("lagged", "times a client began to lag"),
    ("holes", "trades missing at the end"),
    ("lost", "trades lost"),
    ("doubled", "trades doubled"),
)
CHARTS = (
    ("Memory", "MB", ("rss:", "pss")),
    ("Receive to publish in the engine", "us", ("publish:",)),
    ("Receive at the engine to receive at the client, p99", "us", ("client:p99:",)),
    ("Open files", "", ("fds:",)),
    ("asyncio tasks", "", ("tasks:",)),
    ("Threads", "", ("threads:",)),
    ("CPU", "% of a core", ("cpu:",)),
    ("Waiting for a core that others have", "% of the time", ("held:",)),
    ("Trades missing now, lost, doubled", "", ("holes", "lost", "doubled")),
    ("Connections dropped, resumed", "", ("breaks", "resumed")),
)
STYLE = """
:root { color-scheme: light dark; --line: #8883; --soft: #888; --good: #2f9e5b; --bad: #d1592b; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { font-size: 1rem; margin: 2rem 0 .3rem; }
.verdict { font-size: 1.2rem; font-weight: 600; } .good { color: var(--good); } .bad { color: var(--bad); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; height: auto; } polyline { fill: none; stroke-width: 1.4; stroke-linejoin: round; }
text { font-size: 11px; fill: var(--soft); } .y { text-anchor: end; } .x { text-anchor: middle; }
.grid { stroke: var(--line); } .judged { fill: #8881; }
.legend { margin: 0; font-size: 13px; color: var(--soft); } .legend span { margin-right: 1.2rem; }
.legend i { display: inline-block; width: 12px; height: 3px; margin-right: 6px; vertical-align: middle; }
.about { color: var(--soft); }
"""


@dataclass(frozen=True)
class About:
    """What was run, and where."""

    made: str
    command: str
    machine: dict[str, str]
    load: str


def figure(value: float, digits: int) -> str:
    """For a table; '-' where there is none."""
    return f"{value:,.{digits}f}" if isfinite(value) else "-"


def cells(row: Row) -> list[str]:
    """A judged series as the columns of HEAD."""
    digits = row.digits
    moved = ("-", "-")
    if row.trend is not None:
        moved = (f"{row.trend.rise:+,.{digits + 1}f}", f"{row.trend.per_hour:+,.{digits + 1}f}")
    unit = f" ({row.unit})" if row.unit else ""
    values = [figure(value, digits) for value in (row.first, row.middle, row.last)]
    return [f"{row.name}{unit}", *values, *moved, figure(row.allowed, digits + 1), row.verdict]


def count_lines(samples: Samples) -> list[tuple[str, str]]:
    """(words, figure) of what was counted over the whole run."""
    return [(words, figure(samples.last(name), 0)) for name, words in COUNTS]


def words_of(verdict: Verdict) -> str:
    """The verdict in one line."""
    return "flat, and nothing lost" if verdict.passed else "not flat, or not whole"


def curves(samples: Samples, prefixes: Sequence[str]) -> list[Curve]:
    """The columns whose names begin with any of `prefixes`, named by the rest."""
    found = []
    for name in sorted(samples.columns):
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if prefix is not None and any(map(isfinite, samples.columns[name])):
            short = name.removeprefix(prefix) if prefix.endswith(":") else name
            found.append(Curve("all together (PSS)" if name == "pss" else short, samples.columns[name]))
    return found


def page(about: About, samples: Samples, verdict: Verdict) -> str:
    """The whole file."""
    charts = []
    for title, unit, prefixes in CHARTS:
        drawn = curves(samples, prefixes)
        if drawn:
            head = f"{title}, {unit}" if unit else title
            charts.append(f"<h2>{escape(head)}</h2>")
            charts.append(chart(samples.times, drawn, logarithmic=unit == "us"))
    mood = "good" if verdict.passed else "bad"
    listed = "".join(f"<li>{escape(words)}</li>" for words in verdict.wrong)
    minutes = (samples.times[-1] - samples.times[0]) / 60 if samples.times else 0.0
    machine = ", ".join(about.machine.values())
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Soak</title>',
            f"<style>{STYLE}</style></head><body>",
            f'<h1>Soak</h1><p class="verdict {mood}">{escape(words_of(verdict))}</p>',
            f"<ul>{listed}</ul>" if listed else "",
            f"<p>{minutes:.1f} minutes, {escape(about.load)}.</p>",
            f'<p class="about">{escape(about.made)}, <code>{escape(about.command)}</code>',
            f"<br>{escape(machine)}</p>",
            _table(HEAD, [cells(row) for row in verdict.rows], good=FLAT),
            "<p class='about'>Judged is the second half (shaded): its rise by Theil and Sen's slope, in the",
            "series' unit. It is flat unless it rose, with 99.5 % certainty, by more than allowed.</p>",
            _table(("counted", ""), [list(line) for line in count_lines(samples)]),
            *charts,
            "</body></html>\n",
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], good: str | None = None) -> str:
    lines = ["<table><tr>", *(f"<th>{escape(title)}</th>" for title in head), "</tr>"]
    for row in rows:
        *plain, last = row
        mood = "" if good is None else f' class="{"good" if last == good else "bad"}"'
        lines += [
            "<tr>",
            *(f"<td>{escape(text)}</td>" for text in plain),
            f"<td{mood}>{escape(last)}</td></tr>",
        ]
    return "".join([*lines, "</table>"])
