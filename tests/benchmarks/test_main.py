from pathlib import Path

import pytest

from benchmarks import __main__ as main_module
from benchmarks.harness.native import NoCompiler
from benchmarks.harness.options import Options, options
from benchmarks.harness.report import Check, Report


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(main_module, "RESULTS", tmp_path / "results")
    return tmp_path


def replace(monkeypatch: pytest.MonkeyPatch, report: Report | None) -> list[Options]:
    """Put one benchmark in the place of all; without a report it has no compiler."""
    asked: list[Options] = []

    def run(wanted: Options) -> Report:
        asked.append(wanted)
        if report is None:
            raise NoCompiler("no C compiler (cc not found)")
        return report

    monkeypatch.setattr(main_module, "_paths", lambda: {"path_x": ("What x takes", run)})
    return asked


def test_without_a_compiler_it_skips_with_a_word(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(monkeypatch, None)
    assert main_module.main([]) == 0
    assert "skipped: no C compiler" in capsys.readouterr().out


def test_wrong_results_fail_and_missed_targets_only_when_strict(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Report("path_x", "What x takes", [], checks=[Check("p50", 2.0, "<=", 1.2)])
    replace(monkeypatch, report)
    assert main_module.main([]) == 0
    assert main_module.main(["--strict"]) == 1
    report.wrong.append("one trade lost")
    assert main_module.main([]) == 1


def test_results_are_kept_and_rendered(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = replace(monkeypatch, Report("path_x", "What x takes", []))
    written = results / "performance.md"
    assert main_module.main(["path_x", "--full", "--repeat", "5", "--markdown", str(written)]) == 0
    assert asked == [Options(full=True, repeats=5)]
    assert "python -m benchmarks path_x --full --repeat 5" in written.read_text()
    (kept,) = (results / "results").iterdir()
    again = results / "again.md"
    assert main_module.main(["--from", str(kept), "--markdown", str(again)]) == 0
    assert again.read_text() == written.read_text()


def test_an_unknown_name_is_refused_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(monkeypatch, None)
    assert main_module.main(["path_y"]) == 2
    assert "path_x" in capsys.readouterr().err


def test_repeats() -> None:
    assert options(full=False, repeats=None) == Options(False, 1)
    assert options(full=True, repeats=None) == Options(True, 3)
    assert options(full=True, repeats=5).pick(1, 2) == 2
