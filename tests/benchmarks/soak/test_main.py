"""The command and its loop over an engine that is none: samples, ends of all kinds, exit codes."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.harness.engine import EngineError
from benchmarks.soak import __main__ as main_module
from benchmarks.soak import run as run_module
from benchmarks.soak.clients import Cast, Clients
from benchmarks.soak.run import Options, Soak, Soaked
from benchmarks.soak.samples import Samples
from tests.benchmarks.soak.test_judge import samples

METRICS = 'tradeback_tasks{process="engine"} 5.0\ntradeback_feed_aborted_total 0.0\n'


class Fake:
    """Engine and clients in one: this process is the engine's."""

    def __init__(self) -> None:
        self.process = SimpleNamespace(poll=lambda: None, returncode=None)
        self.pid = os.getpid()
        self.sample: dict[str, Any] = Clients(Cast("http://127.0.0.1:1", "BTCUSDT")).sample(True)
        self.asked: list[bool] = []
        self.pids: Iterator[int] | None = None

    def family(self) -> dict[str, int]:
        return {"engine": next(self.pids) if self.pids is not None else self.pid}

    def get(self, path: str) -> tuple[int, bytes]:
        assert path == "/metrics"
        return 200, METRICS.encode()

    def log_tail(self) -> str:
        return "its last words"

    def ask(self, word: str, dropping: bool, timeout_s: float) -> dict[str, Any]:
        assert word == "sample"
        self.asked.append(dropping)
        return dict(self.sample)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()

    @contextmanager
    def started(soak: Soak) -> Iterator[tuple[Fake, Fake]]:
        yield made, made

    monkeypatch.setattr(Soak, "_started", started)
    monkeypatch.setattr(run_module, "SAMPLE_S", 0.01)
    return made


def soak(
    watch: Callable[[float, Samples], None] = lambda passed_s, samples: None, seconds: float = 0.2
) -> Soaked:
    return Soak(Options(minutes=seconds / 60), watch).run()


def interrupt(passed_s: float, samples: Samples) -> None:
    """Ctrl-C after the third sample."""
    if len(samples.times) == 3:
        raise KeyboardInterrupt


def test_samples_are_taken_until_the_time_is_over(fake: Fake) -> None:
    soaked = soak()
    assert 1 <= len(soaked.samples.times) <= 21
    assert (soaked.notes, soaked.early) == ([], False)
    assert soaked.samples.last("tasks:engine") == 5.0
    assert soaked.samples.last("rss:engine") > 1.0
    assert fake.asked == [True] * len(soaked.samples.times) + [False]


def test_holes_may_close_at_the_end(fake: Fake) -> None:
    fake.sample["holes"] = 2
    ask = fake.ask

    def closing(word: str, dropping: bool, timeout_s: float) -> dict[str, Any]:
        if fake.asked.count(False) == 2:
            fake.sample["holes"] = 0
        return ask(word, dropping, timeout_s)

    fake.ask = closing  # type: ignore[method-assign]
    soaked = soak()
    assert fake.asked.count(False) == 3
    *before, last = soaked.samples.columns["holes"]
    assert set(before) <= {2.0}
    assert last == 0.0


def test_ctrl_c_ends_it_early_with_what_there_is(fake: Fake) -> None:
    soaked = soak(interrupt, 60.0)
    assert (len(soaked.samples.times), soaked.early) == (3, True)
    assert soaked.samples.last("cpu:engine") >= 0.0


def test_an_engine_that_ends_ends_the_soak_with_its_last_words(fake: Fake) -> None:
    fake.process = SimpleNamespace(poll=lambda: 1, returncode=1)
    with pytest.raises(EngineError, match="its last words"):
        soak()


def test_a_process_that_was_started_again_is_noted(fake: Fake) -> None:
    def pids() -> Iterator[int]:
        yield os.getpid()
        while True:
            yield os.getppid()

    fake.pids = pids()
    assert [note.partition(" after")[0] for note in soak(interrupt, 60.0).notes] == [
        "engine was started again"
    ]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(main_module, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def shown(monkeypatch: pytest.MonkeyPatch, soaked: Soaked) -> None:
    monkeypatch.setattr(main_module, "_watched", lambda options, console: soaked)


def test_a_flat_soak_ends_with_0_and_leaves_its_page(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(monkeypatch, Soaked(samples(), []))
    assert main_module.main(["--minutes", "2"]) == 0
    (page,) = results.iterdir()
    told = capsys.readouterr()
    assert f"kept as {page}" in told.out
    assert "memory (RSS), engine (MB)" in told.err
    assert "flat, and nothing lost" in told.err
    assert "python -m benchmarks.soak --minutes 2" in page.read_text()


def test_a_soak_that_rises_ends_with_1_and_says_what(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(monkeypatch, Soaked(samples(**{"fds:engine": 1.0}), [], early=True))
    assert main_module.main([]) == 1
    assert "open files, engine rises" in capsys.readouterr().err
    assert ", ended early" in next(results.iterdir()).read_text()


def test_an_engine_that_cannot_run_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(options: Options, console: object) -> Soaked:
        raise EngineError("no port announced")

    monkeypatch.setattr(main_module, "_watched", fails)
    assert main_module.main([]) == 1
    assert "soak: no port announced" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--minutes", "0"], ["--clients", "0"], ["--scrape", "-1"]])
def test_wrong_options_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main_module.main(wrong)
    assert ended.value.code == 2


def test_progress_in_one_line() -> None:
    assert main_module.state(samples()) == "220 MB, p99 300 us, 41 files, 20 tasks, 0 lost"
    assert main_module.state(Samples()) == ""
