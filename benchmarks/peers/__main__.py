"""`python -m benchmarks.peers`: other libraries and tradeback on one simulated exchange, one by one."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks.harness import machine, markdown
from benchmarks.harness.report import Report, as_json, as_text
from benchmarks.peers import tables
from benchmarks.peers.place import Place, eager
from benchmarks.peers.plan import PEERS, RUNS, Peer, Run
from benchmarks.peers.runner import CHECKOUT, Outcome, measure

RESULTS = CHECKOUT / "benchmarks" / "results"
QUICK = 0.4
OK, MISSED, MISUSED = 0, 1, 2


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="PEER", help="of: " + ", ".join(peer.key for peer in PEERS)
    )
    parser.add_argument(
        "--environment", type=Path, default=CHECKOUT / ".venv-peers", metavar="FOLDER",
        help="virtual environment with the peers; make bench-peers makes it (default: .venv-peers)",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="shorter runs, to see whether all works")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="JSON", help="render a result, run nothing"
    )
    return parser.parse_args(argv)


def _places(run: Run, granted: bool) -> tuple[Place, Place]:
    own, other = machine.cores()
    return Place(own, granted and run.real_time), Place(other, granted and run.real_time)


def _compare(peers: Sequence[Peer], runs: Sequence[Run], environment: Path, granted: bool) -> tables.Outcomes:
    """All runs of all peers. Each is told as it ends, so that one sees what works while it goes on."""
    outcomes: dict[tuple[str, str], Outcome] = {}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2) as progress:
        bar = progress.add_task("", total=len(peers) * len(runs))
        for peer in peers:
            for run in runs:
                progress.update(bar, description=f"{peer.title}: {run.title}")
                places = _places(run, granted)
                outcome = outcomes[peer.key, run.key] = measure(peer, run, environment.absolute(), places)
                progress.advance(bar)
                if outcome.reason:
                    progress.console.print(f"{peer.title}, {run.title}: {outcome.reason}", markup=False)
    return outcomes


def _keep(folder: Path, result: dict[str, Any]) -> tuple[Path, Path]:
    """Write JSON and Markdown, named after the time; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "peers-" + result["made"].replace(":", "").replace("+0000", "Z")
    data, text = folder / f"{name}.json", folder / f"{name}.md"
    data.write_text(json.dumps(result, indent=1) + "\n")
    text.write_text(markdown.document(result))
    return data, text


def _result(
    reports: Sequence[Report], outcomes: tables.Outcomes, argv: Sequence[str], quick: bool
) -> dict[str, Any]:
    command = shlex.join(["python", "-m", "benchmarks.peers", *argv])
    result = as_json(reports, command, "quick" if quick else "full")
    result["peers"] = {f"{peer} {run}": asdict(outcome) for (peer, run), outcome in outcomes.items()}
    return result


def main(argv: Sequence[str]) -> int:
    """0, or 1 when tradeback itself lost or doubled a trade or was not measured. Peers may do as they do."""
    given = _arguments(argv)
    if given.source is not None:
        print(markdown.document(json.loads(given.source.read_text())))
        return OK
    unknown = [name for name in given.names if name not in {peer.key for peer in PEERS}]
    if unknown:
        known = ", ".join(peer.key for peer in PEERS)
        print(f"no peer named {', '.join(unknown)}; there are: {known}", file=sys.stderr)
        return MISUSED
    peers = [peer for peer in PEERS if not given.names or peer.key in given.names]
    runs = [run.scaled(QUICK) if given.quick else run for run in RUNS]
    with eager() as granted:
        outcomes = _compare(peers, runs, given.environment, granted)
    reports = [tables.speed(peers, outcomes), tables.cut(peers, outcomes)]
    if granted:
        reports[0].notes.append("Latencies and cuts are of real-time tasks, floods of preferred ones.")
    else:
        reports[0].notes.append("Without priority: other work on the machine shows in the p99.")
    for report in reports:
        print(as_text(report), end="\n\n")
    data, text = _keep(RESULTS, _result(reports, outcomes, argv, given.quick))
    print(f"kept as {data} and {text}")
    ours = [outcome for (key, _), outcome in outcomes.items() if key == "tradeback"]
    failed = any(outcome.reason for outcome in ours) or any(
        not check.met for report in reports for check in report.checks
    )
    return MISSED if failed else OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
