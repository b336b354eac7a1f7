"""`pytest benchmarks` fails when a benchmark cannot run, whichever way it says so."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent

RUNS = "def test_it(benchmark):\n    assert benchmark(int) == 0\n"
SKIPS = "import pytest\n\ndef test_it(benchmark):\n    pytest.skip('no such machine')\n"
SKIPS_ITSELF = "import pytest\npytest.skip('no such machine', allow_module_level=True)\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (RUNS, pytest.ExitCode.OK),
        (SKIPS, pytest.ExitCode.TESTS_FAILED),
        (SKIPS_ITSELF, pytest.ExitCode.INTERRUPTED),
    ],
)
def test_a_benchmark_that_does_not_run_fails(tmp_path: Path, text: str, code: pytest.ExitCode) -> None:
    (tmp_path / "conftest.py").write_text("from benchmarks.conftest import *  # noqa: F403\n")
    (tmp_path / "bench_x.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), "-c", "/dev/null"]
    ended = subprocess.run(
        [*command, "-p", "no:cacheprovider", str(tmp_path)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert ("did not run: Skipped: no such machine" in ended.stdout) == (code != pytest.ExitCode.OK)
