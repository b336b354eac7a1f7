"""`python -m benchmarks.soak --minutes N`: load, samples every second, and whether all stays flat.

Ends with 0 when memory, latency, open files and tasks are flat and no trade was lost or doubled, else with 1.
The report is a table here and a page with plots in benchmarks/results.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.harness import machine
from benchmarks.harness.announced import CommandError
from benchmarks.harness.children import ChildError
from benchmarks.soak.judge import FLAT, Verdict, judge
from benchmarks.soak.page import HEAD, About, cells, count_lines, page, words_of
from benchmarks.soak.run import Options, Soak, Soaked
from benchmarks.soak.samples import Samples

RESULTS = Path(__file__).parent.parent / "results"
PASSED, FAILED = 0, 1
PLAIN_EVERY_S = 60.0
"""How often progress is told where no bar can be drawn."""
PLAIN_WIDTH = 130


def _arguments(argv: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default 10)")
    parser.add_argument("--rate", type=float, default=2_000.0, help="events/s of the market (default 2000)")
    parser.add_argument("--symbols", type=int, default=20, help="symbols of the market (default 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the market and of the dropping client")
    parser.add_argument("--faults", type=int, metavar="SEED", help="let things go wrong (docs/simulator.md)")
    parser.add_argument("--workers", type=int, default=0, help="feed workers (default 0)")
    parser.add_argument("--clients", type=int, default=1, help="v2 clients that take all (default 1)")
    parser.add_argument("--scrape", type=float, default=0.0, help="seconds between reads of /metrics (5)")
    given = parser.parse_args(argv)
    if given.minutes <= 0 or given.scrape < 0 or given.clients < 1:
        parser.error("--minutes is above 0, --scrape is not below 0, --clients is 1 or more")
    return Options(
        given.minutes, given.rate, given.symbols, given.seed, given.faults, given.workers, given.clients,
        given.scrape,
    )  # fmt: skip


def state(samples: Samples) -> str:
    """The newest figures in one line."""
    shown = [
        (f"{samples.last('pss'):,.0f} MB", samples.last("pss")),
        (f"p99 {samples.last('client:p99:v2 all'):,.0f} us", samples.last("client:p99:v2 all")),
        (f"{samples.last('fds:engine'):.0f} files", samples.last("fds:engine")),
        (f"{samples.last('tasks:engine'):.0f} tasks", samples.last("tasks:engine")),
        (f"{samples.last('holes'):.0f} missing", samples.last("holes")),
        (f"{samples.last('lost'):.0f} lost", samples.last("lost")),
    ]
    return ", ".join(words for words, value in shown if isfinite(value))


def _watched(options: Options, console: Console) -> Soaked:
    columns = (
        TextColumn("soak"), BarColumn(bar_width=24), TimeRemainingColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
    told_s = 0.0
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=options.seconds)

        def watch(passed_s: float, samples: Samples) -> None:
            nonlocal told_s
            progress.update(task, completed=passed_s, description=state(samples))
            if not console.is_terminal and passed_s - told_s >= PLAIN_EVERY_S:
                told_s = passed_s
                console.print(f"{passed_s / 60:.0f} min: {state(samples)}", highlight=False)

        soak = Soak(options, watch)
        soak.stage = lambda words: progress.update(task, description=words)
        return soak.run()


def _show(console: Console, samples: Samples, verdict: Verdict) -> None:
    table = Table(title="second half of the soak", title_justify="left")
    for place, title in enumerate(HEAD):
        table.add_column(title, justify="left" if place in (0, len(HEAD) - 1) else "right", no_wrap=True)
    for row in verdict.rows:
        table.add_row(*cells(row), style=None if row.verdict == FLAT else "red")
    console.print(table)
    for words, figure in count_lines(samples):
        console.print(f"  {words}: {figure}", highlight=False)
    colour = "green" if verdict.passed else "red"
    for words in (words_of(verdict), *verdict.wrong):
        console.print(words, style=colour, highlight=False, markup=False, soft_wrap=True)


def main(argv: Sequence[str]) -> int:
    """0, or 1 when something rises or a trade is lost."""
    options = _arguments(argv)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else PLAIN_WIDTH)
    started = time.time()
    try:
        soaked = _watched(options, console)
    except (CommandError, ChildError) as error:
        console.print(f"soak: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return FAILED
    verdict = judge(soaked.samples, soaked.notes)
    made = datetime.fromtimestamp(started, UTC)
    command = shlex.join(["python", "-m", "benchmarks.soak", *argv])
    load = options.load + (", ended early" if soaked.early else "")
    about = About(made.isoformat(timespec="seconds"), command, machine.description(), load)
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"soak-{made:%Y-%m-%dT%H%M%SZ}.html"
    path.write_text(page(about, soaked.samples, verdict))
    _show(console, soaked.samples, verdict)
    print(f"kept as {path}")
    return PASSED if verdict.passed else FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
