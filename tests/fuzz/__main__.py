"""`python -m tests.fuzz --frames N --seed S`: any number of broken frames between good ones, on all cores.

A seed that breaks something is named with what it broke; the same command with that seed breaks it again.
"""

import argparse
import multiprocessing
import os
import sys

from rich.console import Console
from rich.progress import Progress

from tests.fuzz.grind import SEED_FRAMES, Ground, grind_seed


def main() -> int:
    """Grind until all are done or one breaks something. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000, help="about so many (default a million)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    asked = parser.parse_args()
    seeds = range(asked.seed, asked.seed + -(-asked.frames // SEED_FRAMES))
    console, total = Console(), Ground()
    context = multiprocessing.get_context("spawn")
    with context.Pool(asked.jobs) as pool, Progress(console=console) as progress:
        task = progress.add_task("frames", total=len(seeds) * SEED_FRAMES)
        for seed, ground in pool.imap_unordered(grind_seed, seeds):
            progress.advance(task, ground.frames)
            if ground.problems:
                console.print(f"seed {seed} broke: {ground.problems[0]}", markup=False, soft_wrap=True)
                console.print(f"again with: python -m tests.fuzz --frames 1 --seed {seed}", markup=False)
                return 1
            for name in ("frames", "good", "broken_accepted", "by_slow_path", "malformed"):
                setattr(total, name, getattr(total, name) + getattr(ground, name))
    console.print(
        f"{total.frames:,} frames, {total.good:,} good ones all on the tape and unharmed; of the broken ones "
        f"{total.malformed:,} refused, {total.broken_accepted:,} still an event, "
        f"{total.by_slow_path:,} of all read by the slow path",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
