"""What a benchmark returns, as plain data: rows of figures, checks against targets; as text and as JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness import machine


@dataclass(frozen=True)
class Column:
    """One figure of a table. `digits` after the point; 0 groups thousands."""

    key: str
    title: str
    digits: int = 0


@dataclass(frozen=True)
class Row:
    """One variant, with the medians of its figures. A `note` says why figures are missing."""

    name: str
    figures: dict[str, float]
    note: str = ""


@dataclass(frozen=True)
class Check:
    """One target: `value` must be `<=` or `>=` the bound."""

    name: str
    value: float
    relation: str
    bound: float
    doubt: str = ""
    """Why the value decides nothing, such as a machine that was not quiet; empty when it does."""

    @property
    def met(self) -> bool:
        """Whether the target is reached; NaN and what is in doubt never is."""
        if math.isnan(self.value) or self.doubt:
            return False
        return self.value <= self.bound if self.relation == "<=" else self.value >= self.bound


@dataclass
class Report:
    """One benchmark's result."""

    name: str
    title: str
    columns: list[Column]
    rows: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: str = ""
    """Why the benchmark did not run; empty when it did."""
    wrong: list[str] = field(default_factory=list)
    """Results that are not what they should be: losses, doubles, wrong values. No speed makes up for it."""


def cell(value: float | None, digits: int) -> str:
    """A figure for people: thousands grouped, '-' where there is none."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.{digits}f}"


def table_cells(report: Report) -> list[list[str]]:
    """The table as text cells, head first."""
    noted = any(row.note for row in report.rows)
    head = ["", *(column.title for column in report.columns), *(["remark"] if noted else [])]
    body = [
        [
            row.name,
            *(cell(row.figures.get(column.key), column.digits) for column in report.columns),
            *([row.note] if noted else []),
        ]
        for row in report.rows
    ]
    return [head, *body]


def as_text(report: Report) -> str:
    """The report for a terminal."""
    lines = [f"{report.name}: {report.title}"]
    if report.skipped:
        return "\n".join([*lines, f"  skipped: {report.skipped}"])
    cells = table_cells(report)
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    for row in cells:
        first, *rest = (text.rjust(width) for text, width in zip(row, widths, strict=True))
        lines.append("  " + "  ".join([row[0].ljust(len(first)), *rest]))
    lines += [f"  {verdict(check).ljust(8)} {check_text(check)}" for check in report.checks]
    lines += [f"  WRONG RESULT: {text}" for text in report.wrong]
    lines += [f"  {note}" for note in report.notes]
    return "\n".join(lines)


def verdict(check: Check) -> str:
    """reached, missed, or in doubt."""
    if check.doubt:
        return "in doubt"
    return "reached" if check.met else "MISSED"


def check_text(check: Check) -> str:
    """`name: value (target <= bound)`, and why it is in doubt."""
    digits = 2 if check.bound < 100 else 0
    reason = f"; {check.doubt}" if check.doubt else ""
    target = f"target {check.relation} {cell(check.bound, digits)}"
    return f"{check.name}: {cell(check.value, digits)} ({target}{reason})"


def as_json(reports: Sequence[Report], command: str, size: str) -> dict[str, Any]:
    """All reports with the command and the machine that made them."""
    return {
        "command": command,
        "size": size,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.description(),
        "benchmarks": [
            {**asdict(report), "checks": [{**asdict(check), "met": check.met} for check in report.checks]}
            for report in reports
        ],
    }


def from_json(document: dict[str, Any]) -> list[Report]:
    """The reports of a result file."""
    return [
        Report(
            name=entry["name"],
            title=entry["title"],
            columns=[Column(**column) for column in entry["columns"]],
            rows=[Row(**row) for row in entry["rows"]],
            checks=[
                Check(check["name"], check["value"], check["relation"], check["bound"], check["doubt"])
                for check in entry["checks"]
            ],
            notes=entry["notes"],
            skipped=entry["skipped"],
            wrong=entry["wrong"],
        )
        for entry in document["benchmarks"]
    ]


def write_json(folder: Path, document: dict[str, Any]) -> Path:
    """Write a result file named after its time; the path of it."""
    folder.mkdir(parents=True, exist_ok=True)
    name = document["made"].replace(":", "").replace("+0000", "Z")
    path = folder / f"paths-{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path
