"""The tables of docs/performance.md."""

from collections.abc import Sequence
from typing import Any

from benchmarks.harness.report import Report, check_text, from_json, table_cells, verdict

VERDICTS = {"reached": "reached", "MISSED": "**missed**", "in doubt": "in doubt"}


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escape(text) for text in cells) + " |"


def table(report: Report) -> str:
    """One benchmark: heading, table, targets, notes."""
    lines = [f"### {report.name}", "", report.title, ""]
    if report.skipped:
        return "\n".join([*lines, f"Skipped: {report.skipped}.", ""])
    head, *body = table_cells(report)
    lines += [_line(head), "|---|" + "---:|" * (len(head) - 1)]
    lines += [_line(row) for row in body]
    lines.append("")
    lines += [f"- {VERDICTS[verdict(check)]}: {check_text(check)}" for check in report.checks]
    lines += [f"- **wrong result**: {text}" for text in report.wrong]
    lines += [f"- {note}" for note in report.notes]
    return "\n".join([*lines, ""])


def document(result: dict[str, Any]) -> str:
    """A whole result file, with the command that made it."""
    about = result["machine"]
    lines = [
        f"Made by `{result['command']}` at {result['made']} on {about['processor']}, {about['system']},",
        f"Python {about['python']} ({about['libraries']}). Medians; every ratio is within one run.",
        "",
    ]
    return "\n".join([*lines, *(table(report) for report in from_json(result))])
