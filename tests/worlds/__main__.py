"""`python -m tests.worlds --seeds FROM-TO`: live through any number of worlds, on all cores.

A world that breaks an invariant is named by its seed, with the command that lives through it again.
"""

import argparse
import multiprocessing
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.worlds.living import Ending, live_through


def replay_command(seed: int) -> str:
    """What lives through one world again, and shows it."""
    return f"python -m tests.worlds --seeds {seed} --show"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.worlds", description=__doc__)
    parser.add_argument("--seeds", default="0-199", help="one seed, or FROM-TO (default 0-199)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    parser.add_argument("--show", action="store_true", help="print the plan, the faults and what they hit")
    parser.add_argument("--keep", type=Path, help="keep the engine's data of one world in this new folder")
    return parser.parse_args()


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    try:
        return range(int(first), int(last or first) + 1)
    except ValueError:
        sys.exit(f"--seeds {text}: write one number, or FROM-TO, such as 0-9999")


def _show(seed: int, console: Console) -> None:
    from tests.worlds.plan import plan_of, script_of

    plan = plan_of(seed)
    console.print(
        f"{plan.symbols} symbols, {plan.rate:.0f} events/s for {plan.span_s:.1f} s, {plan.lines} line(s), "
        f"stops {[tuple(stop) for stop in plan.stops]}, {plan.watchers} subscriber(s), "
        f"history {plan.history}, ages {plan.life_rate:g} times as fast",
        highlight=False,
    )
    console.print(script_of(plan), markup=False, highlight=False)


def _tell(ending: Ending, console: Console) -> None:
    console.print(
        f"\nworld {ending.seed} broke: {ending.problem}\nagain with: {replay_command(ending.seed)}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def main() -> int:
    """The command. Returns 1 when a world broke."""
    given, console = _arguments(), Console(stderr=True)
    seeds = _seeds(given.seeds)
    if given.show:
        for seed in seeds:
            _show(seed, console)
    if given.keep is not None and given.keep.exists():
        sys.exit(f"--keep {given.keep} exists; name a new folder")
    if len(seeds) == 1:
        endings = [live_through(seeds[0], given.keep)]
        for ending in endings:
            if ending.problem:
                _tell(ending, console)
    else:
        endings = _many(seeds, given.jobs, console)
    return _sum_up(endings, console)


def _many(seeds: range, jobs: int, console: Console) -> list[Ending]:
    endings: list[Ending] = []
    columns = (TextColumn("worlds"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Forked workers would share the numba runtime's threads; spawned ones load the kernels' cache.
    with (
        multiprocessing.get_context("spawn").Pool(jobs) as pool,
        Progress(*columns, console=console) as progress,
    ):
        task = progress.add_task("", total=len(seeds))
        for ending in pool.imap_unordered(live_through, seeds, chunksize=4):
            endings.append(ending)
            if ending.problem:
                _tell(ending, console)
            progress.advance(task)
            if not console.is_terminal and len(endings) % 100 == 0:
                console.print(f"{len(endings)} worlds lived through")
    return endings


def _sum_up(endings: list[Ending], console: Console) -> int:
    broken = sorted(ending.seed for ending in endings if ending.problem)
    hits: dict[str, int] = {}
    for ending in endings:
        for kind, count in ending.hits.items():
            hits[kind] = hits.get(kind, 0) + count
    acted = ", ".join(f"{kind} {count}" for kind, count in sorted(hits.items()))
    console.print(f"{len(endings)} worlds, {sum(one.trades for one in endings):,} trades; faults: {acted}")
    if broken:
        console.print(f"broken: {len(broken)}: {broken[:50]}", highlight=False)
        return 1
    console.print("all invariants held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
