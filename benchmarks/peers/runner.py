"""One run of one peer: a simulator on one core, the peer and what belongs to it on the other."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.announced import CommandError
from benchmarks.harness.children import Child
from benchmarks.harness.engine import Engine
from benchmarks.peers import account as accounts
from benchmarks.peers.child import STEADY_S_MAX
from benchmarks.peers.place import Place
from benchmarks.peers.plan import Peer, Run
from benchmarks.peers.reference import Sendings, follow
from benchmarks.peers.simulator import Simulator, instruments

CHECKOUT = Path(__file__).resolve().parents[2]
QUIET_S = 20.0
START_S_MAX = 30.0
HISTORY_S_MAX = 6.0
SETTLED_MS = 1_000
"""What happened in the last second of a run may still be on its way."""
REASON_CHARS = 160


class PeerError(RuntimeError):
    """The peer could not be measured; the text says why in one line."""


@dataclass
class Outcome:
    """What one run of one peer has shown, as plain data for the table and the result file."""

    reason: str = ""
    """Why there is nothing; empty when there is."""
    result: dict[str, Any] = field(default_factory=dict)
    """The child's own words, without the single trades."""
    latency: accounts.Latency | None = None
    by_kernel: bool = True
    account: dict[str, Any] = field(default_factory=dict)
    """received, lost, doubled, stood_in, unseen, reported, states, silence_s."""


def python_of(peer: Peer, environment: Path) -> Path:
    """The interpreter that has this peer's library. Raises PeerError."""
    if peer.engine:
        return Path(sys.executable)
    found = environment / "bin" / "python"
    if not found.exists():
        raise PeerError(f"there is no {found.relative_to(environment.parent)}; `make bench-peers` makes it")
    return found.absolute()


def reason_of(code: int | None, log: str) -> str:
    """What went wrong, in one line, from the child's exit code (None: it did not end) and its words."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    last = lines[-1][:REASON_CHARS] if lines else ""
    if last.startswith("ModuleNotFoundError"):
        return f"not installed ({last.removeprefix('ModuleNotFoundError: ')})"
    if code is None:
        return f"did not end in time{': ' + last if last else ''}"
    return last or f"ended with code {code}, without a word"


def _environment() -> dict[str, str]:
    """Without proxies, which do not lead to this machine, and without tradeback's kernel cache."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and name != "NUMBA_CACHE_DIR"
    }


def _child(peer: Peer, python: Path, task: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Run the peer's script to its end. Raises PeerError."""
    with tempfile.TemporaryDirectory(prefix="tradeback-peer-") as name:
        folder = Path(name)
        result, log = folder / "result.json", folder / "log"
        seconds = START_S_MAX + QUIET_S + STEADY_S_MAX + task["warm_s"] + task["seconds"]
        with log.open("w") as out:
            process = subprocess.Popen(
                [str(python), "-m", peer.module, json.dumps({**task, "result": str(result)})],
                stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=CHECKOUT, env=_environment(),
                preexec_fn=place.take,
            )  # fmt: skip
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                process.kill()
                process.wait()
        if not result.exists():
            raise PeerError(reason_of(code, log.read_text(errors="replace")))
        found: dict[str, Any] = json.loads(result.read_text())
        return found


def _task(peer: Peer, run: Run, simulator: Simulator) -> dict[str, Any]:
    listed = [[one.symbol, one.base, one.quote] for one in instruments()]
    return {
        "ws": simulator.ws_endpoint, "rest": simulator.rest_endpoint, "symbols": listed, "url": "",
        "count_only": run.count_only, "warm_s": run.warm_s, "seconds": run.seconds, "quiet_s": QUIET_S,
        "library": peer.library, "beside": {},
    }  # fmt: skip


def _engine(stack: ExitStack, run: Run, simulator: Simulator, place: Place) -> dict[str, Any]:
    """Start an engine as users have it; what of it the client's task needs to know."""
    names = [one.symbol for one in instruments()]
    engine = stack.enter_context(Engine(simulator, names, place.core, alone=False))
    engine.wait_ready()
    if not run.faults:
        engine.wait_history(HISTORY_S_MAX)
    family = engine.family()
    place.give(family["engine"])  # not the supervisor and the recorder: nobody waits for those
    return {"url": f"http://127.0.0.1:{engine.port}", "beside": family}


def _accounts(peer: Peer, simulator: Simulator, result: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the simulator what happened, and compare."""
    path, key = ("aggTrades", "a") if peer.takes == "aggTrade" else ("historicalTrades", "id")
    until_ms = result["end_ns"] / 1e6 - SETTLED_MS
    newest = {one.symbol: simulator.newest(path, key, one.symbol, until_ms) for one in instruments()}
    found = accounts.account(result["got"], result["stood_in"], newest)
    lost = found.lost_count
    if peer.takes == "aggTrade":
        lost = sum(simulator.merged(symbol, ids) for symbol, ids in found.lost.items())
    ids, states = accounts.reported(result["gaps"])
    return {
        "received": found.received, "lost": lost, "lost_ids": found.lost_count, "doubled": found.doubled,
        "stood_in": found.stood_in, "unseen": found.unseen, "reported": ids, "states": states,
        "silence_s": accounts.longest_silence_s(result["got"]),
    }  # fmt: skip


def measure(peer: Peer, run: Run, environment: Path, places: tuple[Place, Place]) -> Outcome:
    """One run of one peer: it in the first place, the simulator in the second.

    Whatever is wrong with a peer is an Outcome with its reason.
    """
    try:
        return _measure(peer, run, environment, *places)
    except (PeerError, CommandError) as error:
        return Outcome(reason=str(error))


def _measure(peer: Peer, run: Run, environment: Path, own: Place, other: Place) -> Outcome:
    python, outcome = python_of(peer, environment), Outcome()
    with ExitStack() as stack:
        simulator = stack.enter_context(Simulator(run, other))
        task = _task(peer, run, simulator)
        reference: Child | None = None
        if run.reference:
            kinds = [f"{one.stream}@{kind}" for one in instruments() for kind in ("trade", "aggTrade")]
            reference = Child(other.core, follow, other, simulator.ws_endpoint, kinds)
            stack.callback(reference.close)
        if peer.engine:
            task |= _engine(stack, run, simulator, own)
        result = _child(peer, python, task, own)
        if reference is not None:
            sendings: Sendings = reference.ask("what was sent")
            sent = sendings.aggs if peer.takes == "aggTrade" else sendings.trades
            outcome.by_kernel = sendings.by_kernel
            try:
                outcome.latency = accounts.latency(result["got"], sent, result["begin_ns"], result["end_ns"])
            except ValueError:
                raise PeerError("none of its trades is one that was sent") from None
        if run.faults:
            outcome.account = _accounts(peer, simulator, result)
        del result["got"]
        outcome.result = result
        return outcome
