"""`python -m benchmarks`: measure the paths, print the tables, keep them as JSON, render them as Markdown."""

import argparse
import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness import markdown
from benchmarks.harness.native import NoCompiler
from benchmarks.harness.options import Options, options
from benchmarks.harness.report import Report, as_json, as_text, write_json

RESULTS = Path(__file__).parent / "results"
OK, WRONG = 0, 1


def _paths() -> dict[str, tuple[str, Callable[[Options], Report]]]:
    """name -> (title, run). Imported late, so that --help and --from need nothing."""
    from benchmarks import (
        path_end_to_end,
        path_fanout,
        path_faults,
        path_history,
        path_ingest,
        path_lines,
        path_page,
        path_sinks,
        path_startup,
        sizes_wire,
    )

    modules = (
        path_ingest, path_end_to_end, path_lines, path_faults, path_fanout, path_history, path_page,
        path_sinks, path_startup, sizes_wire,
    )  # fmt: skip
    return {module.NAME: (module.TITLE, module.run) for module in modules}


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="path_ingest, path_end_to_end, ... (default: all)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_true", help="small sizes, to show that all works (default)")
    size.add_argument("--full", action="store_true", help="the sizes of docs/performance.md")
    parser.add_argument("--repeat", type=int, metavar="N", help="repeats, of which the median counts")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables as Markdown")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="JSON", help="render a result, measure none"
    )
    parser.add_argument("--strict", action="store_true", help="a missed target is an error too")
    return parser.parse_args(argv)


def measure(chosen: Sequence[str], asked: Options) -> list[Report]:
    """Run the chosen benchmarks one after the other, printing each as it is done."""
    paths, reports = _paths(), []
    for name in chosen:
        title, run = paths[name]
        start = time.monotonic()
        try:
            report = run(asked)
        except NoCompiler as reason:
            report = Report(name, title, [], skipped=str(reason))
        reports.append(report)
        print(f"{as_text(report)}\n  took {time.monotonic() - start:.1f} s\n", flush=True)
    return reports


def main(argv: Sequence[str]) -> int:
    """0, or 1 when a result was wrong (with --strict also when a target was missed)."""
    given = _arguments(argv)
    if given.source is not None:
        result = json.loads(given.source.read_text())
        reports: list[Report] = []
    else:
        known = list(_paths())
        unknown = [name for name in given.names if name not in known]
        if unknown:
            print(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
            return 2
        reports = measure(given.names or known, options(given.full, given.repeat))
        command = shlex.join(["python", "-m", "benchmarks", *argv])
        result = as_json(reports, command, "full" if given.full else "small")
        print(f"kept as {write_json(RESULTS, result)}")
    if given.markdown is not None:
        given.markdown.write_text(markdown.document(result))
    missed = given.strict and any(not check.met for report in reports for check in report.checks)
    return WRONG if missed or any(report.wrong for report in reports) else OK


def _end(number: int, frame: object) -> None:
    """Unwind, so that engines and servers are stopped: what goes on running would be measured by the next."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main(sys.argv[1:]))
