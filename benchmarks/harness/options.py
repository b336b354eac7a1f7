"""How a run of the benchmarks is asked for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """`full`: the sizes of docs/performance.md; else small ones that only show that everything works."""

    full: bool = False
    repeats: int = 1

    def pick(self, small: int, full: int) -> int:
        """One of two sizes."""
        return full if self.full else small


def options(full: bool, repeats: int | None) -> Options:
    """Three repeats in full, one in small, unless told."""
    return Options(full, repeats if repeats is not None else (3 if full else 1))
