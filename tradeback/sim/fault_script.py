"""Reads a fault script from a file, or makes one from a seed, as the command line names it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tradeback.model.units import parse_duration
from tradeback.sim.fault_play import FaultPlay
from tradeback.sim.fault_seeds import seeded_faults
from tradeback.sim.faults import FaultError, make_fault

SEED = "seed:"
SEED_SPAN_S = 600.0
_TOP_KEYS = {"seed", "faults"}


def load_faults(named: str, symbols: Sequence[str]) -> FaultPlay:
    """The run of the script in the file `named`, or of the seeded one for `seed:N` or `seed:N:SPAN`.

    FaultError says what is wrong, where, and what would be right.
    """
    return _seeded(named, symbols) if named.startswith(SEED) else _from_file(Path(named), symbols)


def _seeded(named: str, symbols: Sequence[str]) -> FaultPlay:
    number, _, span = named.removeprefix(SEED).partition(":")
    try:
        seed = int(number)
        span_s = parse_duration(span) if span else SEED_SPAN_S
    except ValueError:
        raise FaultError(f"{named}: write seed:NUMBER or seed:NUMBER:LENGTH, such as seed:7:30m") from None
    return FaultPlay(seeded_faults(seed, span_s, symbols), seed, symbols)


def _from_file(path: Path, symbols: Sequence[str]) -> FaultPlay:
    import yaml

    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise FaultError(f"{path} does not exist; name a fault script, or seed:NUMBER") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FaultError(f"{path} cannot be read: {error}") from None
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FaultError(f"{path} is neither YAML nor JSON: {error}") from None
    seed, entries = _parts(given, path)
    faults = []
    for number, entry in enumerate(entries, 1):
        place = f"{path}, fault {number}"
        if not isinstance(entry, dict):
            raise FaultError(f"{place} must be a table of keys such as kind and at, not {entry!r}")
        faults.append(make_fault({str(key): value for key, value in entry.items()}, place))
    return FaultPlay(faults, seed, symbols)


def _parts(given: Any, path: Path) -> tuple[int, list[Any]]:
    if isinstance(given, list):
        return 0, given
    if not isinstance(given, dict) or not isinstance(given.get("faults"), list):
        raise FaultError(f"{path} must hold `faults:` with a list, or only the list")
    strange = sorted(map(str, set(given) - _TOP_KEYS))
    if strange:
        raise FaultError(f"{path} has no key {strange[0]!r} at its top; it can be faults and seed")
    seed = given.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise FaultError(f"{path}: seed must be a whole number, not {seed!r}")
    return seed, given["faults"]
