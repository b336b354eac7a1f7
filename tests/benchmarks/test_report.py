import json
import math
from pathlib import Path

import pytest

from benchmarks.harness import markdown
from benchmarks.harness.report import (
    Check,
    Column,
    Report,
    Row,
    as_json,
    as_text,
    cell,
    from_json,
    write_json,
)


@pytest.fixture
def report() -> Report:
    return Report(
        "path_x",
        "What x takes",
        [Column("rate", "M/s", 2), Column("count", "frames")],
        rows=[Row("tradeback", {"rate": 7.125, "count": 1_234_567.0}), Row("a | b", {"rate": 0.5}, "late")],
        checks=[
            Check("rate", 7.125, ">=", 4.0),
            Check("p50", 1.3, "<=", 1.2),
            Check("p99", 0.01, "<=", 1.5, "not quiet"),
        ],
        notes=["tape on disk"],
    )


@pytest.mark.parametrize(
    ("value", "relation", "bound", "met"),
    [
        (1.2, "<=", 1.2, True),
        (1.21, "<=", 1.2, False),
        (4.0, ">=", 4.0, True),
        (3.9, ">=", 4.0, False),
        (math.nan, "<=", 1.2, False),
        (math.nan, ">=", 1.2, False),
    ],
)
def test_targets(value: float, relation: str, bound: float, met: bool) -> None:
    assert Check("x", value, relation, bound).met is met


def test_cells_group_thousands_and_show_what_is_missing() -> None:
    assert cell(1_234_567.0, 0) == "1,234,567"
    assert cell(None, 2) == cell(math.nan, 2) == "-"


def test_text_holds_rows_targets_and_notes(report: Report) -> None:
    text = as_text(report)
    assert "7.12  1,234,567" in text
    assert "in doubt p99: 0.01 (target <= 1.50; not quiet)" in text
    assert "reached  rate: 7.12 (target >= 4.00)" in text
    assert "MISSED   p50: 1.30 (target <= 1.20)" in text
    assert "late" in text
    assert "WRONG" not in text
    report.wrong.append("one trade lost")
    assert "WRONG RESULT: one trade lost" in as_text(report)


def test_a_skipped_benchmark_says_why() -> None:
    skipped = Report("path_x", "What x takes", [], skipped="no C compiler")
    assert "skipped: no C compiler" in as_text(skipped)
    assert "Skipped: no C compiler." in markdown.table(skipped)


def test_json_keeps_everything(report: Report, tmp_path: Path) -> None:
    result = as_json([report], "python -m benchmarks path_x", "small")
    path = write_json(tmp_path / "results", result)
    read = json.loads(path.read_text())
    assert from_json(read) == [report]
    assert [check["met"] for check in read["benchmarks"][0]["checks"]] == [True, False, False]
    assert {"processor", "python", "libraries"} <= set(read["machine"])


def test_markdown_is_a_table_with_its_command(report: Report) -> None:
    text = markdown.document(as_json([report], "python -m benchmarks path_x", "small"))
    lines = text.splitlines()
    assert "Made by `python -m benchmarks path_x`" in lines[0]
    head = next(place for place, line in enumerate(lines) if "| M/s |" in line)
    widths = {line.replace("\\|", "").count("|") for line in lines[head : head + 4]}
    assert len(widths) == 1, "every line of the table has the same number of cells"
    assert lines[head + 1].startswith("|---|---:|")
    assert "- **missed**: p50: 1.30" in text
    assert "- in doubt: p99: 0.01" in text
