"""The two tables of `make bench-peers`, from what the runs have shown. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness.report import Check, Column, Report, Row
from benchmarks.harness.stats import ratio
from benchmarks.peers.account import SLICES
from benchmarks.peers.plan import CALM, CUT, FLOOD, SYMBOLS, Peer
from benchmarks.peers.runner import Outcome

Outcomes = Mapping[tuple[str, str], Outcome]
"""By (peer, run)."""

SPEED_COLUMNS = [
    Column("per_core", "events/s per core"),
    Column("ratio", "/ base", 2),
    Column("busy", "busy %"),
    Column("stamp_p50", "stamp to callback p50 us"),
    Column("stamp_p99", "p99 us"),
    Column("sent_p50", "sent to callback p50 us"),
    Column("sent_p99", "p99 us"),
    Column("rss", "MB at 2,000/s"),
    Column("peak", "MB at most, flooded"),
]
CUT_COLUMNS = [
    Column("received", "trades received"),
    Column("lost", "lost"),
    Column("doubled", "doubled"),
    Column("reported", "ids reported missing"),
    Column("repaired", "of these repaired"),
    Column("silence_s", "longest silence s", 2),
]
HELD_UP_SHARE = 0.03
CLIENT_ALONE = "tradeback: the client's share"


def events(result: Mapping[str, Any]) -> int:
    """Everything that the peer digested in its window."""
    return int(result["trades"]) + int(result["quotes"]) + int(result["conflated"])


def _speed_figures(flood: Outcome, calm: Outcome, names: Sequence[str]) -> dict[str, float]:
    """Figures of the processes called `names` (all of them when empty)."""
    figures: dict[str, float] = {}
    if flood.result:
        cpu_s = sum(used for name, used in flood.result["cpu_s"].items() if not names or name in names)
        figures["per_core"] = ratio(events(flood.result), cpu_s)
        figures["busy"] = 100 * ratio(cpu_s, flood.result["wall_s"])
        figures["peak"] = sum(
            mb for name, mb in flood.result["peak_mb"].items() if not names or name in names
        )
    if calm.result:
        figures["rss"] = sum(mb for name, mb in calm.result["rss_mb"].items() if not names or name in names)
    return figures


def _remark(*outcomes: Outcome) -> str:
    """Why figures are missing: each reason once."""
    return "; ".join(dict.fromkeys(outcome.reason for outcome in outcomes if outcome.reason))


def _held_up(title: str, outcome: Outcome) -> str | None:
    if not outcome.result:
        return None
    share = ratio(outcome.result["held_up_s"], outcome.result["wall_s"])
    return f"{title} ({100 * share:.0f} %)" if share > HELD_UP_SHARE else None


def _versions(peers: Sequence[Peer], outcomes: Outcomes) -> str:
    found: dict[str, set[str]] = {}
    for (key, _), outcome in outcomes.items():
        if key in {peer.key for peer in peers}:
            for name, version in outcome.result.get("versions", {}).items():
                found.setdefault(name, set()).add(version)
    return ", ".join(f"{name} {' and '.join(sorted(versions))}" for name, versions in sorted(found.items()))


def speed(peers: Sequence[Peer], outcomes: Outcomes) -> Report:
    """Events per second and core, latency, memory."""
    title = f"{SYMBOLS} symbols, trades and best bid and ask, no TLS; one core for a peer and all it needs"
    report = Report("peers_speed", title, list(SPEED_COLUMNS))
    base = 0.0
    for peer in peers:
        flood, calm = outcomes[peer.key, FLOOD.key], outcomes[peer.key, CALM.key]
        figures = _speed_figures(flood, calm, ())
        base = base or figures.get("per_core", 0.0)
        if calm.latency is not None:
            figures |= {
                "stamp_p50": calm.latency.stamp_p50_us, "stamp_p99": calm.latency.stamp_p99_us,
                "sent_p50": calm.latency.sent_p50_us, "sent_p99": calm.latency.sent_p99_us,
            }  # fmt: skip
        rows = [Row(peer.title, figures, _remark(flood, calm))]
        if peer.engine:
            rows.append(Row(CLIENT_ALONE, _speed_figures(flood, calm, ("peer",))))
        for row in rows:
            if "per_core" in row.figures:
                row.figures["ratio"] = ratio(row.figures["per_core"], base)
        report.rows += rows
    report.notes += _speed_notes(peers, outcomes)
    return report


def _speed_notes(peers: Sequence[Peer], outcomes: Outcomes) -> list[str]:
    notes = [
        "events/s per core: what the peer digested in a second of CPU time, all its threads and processes "
        "counted, while the simulator sent as fast as it was read. busy: that CPU time in percent of one "
        "core; below 100 the simulator was the limit, and the peer may do better in larger bulks.",
        "stamp: the exchange's time in the frame, in us. The simulator sends what is due once a millisecond, "
        "so about half of a millisecond of these is its own; sent: the moment at which the kernel passed the "
        f"frame on. Percentiles are medians over {SLICES} parts of the run.",
    ]
    notes += [f"{peer.title}: {note}" for peer in peers for note in peer.notes]
    own = outcomes.get(("tradeback", CALM.key))
    if own is not None and own.result:
        parts = ", ".join(
            f"{'client' if name == 'peer' else name} {mb:.0f}" for name, mb in own.result["rss_mb"].items()
        )
        notes.append(f"tradeback's MB by process at 2,000/s: {parts}; what they share is counted in each.")
    ccxt = outcomes.get(("ccxt", FLOOD.key))
    if ccxt is not None and ccxt.result:
        decoded = ccxt.result["quotes"] + ccxt.result["conflated"]
        notes.append(
            f"ccxt.pro showed the user {ccxt.result['quotes']:,} of {decoded:,} quotes when flooded."
        )
    late = [_held_up(peer.title, outcomes[peer.key, CALM.key]) for peer in peers if not peer.engine]
    if any(late):
        notes.append(
            f"Others had the core for some of the time: {', '.join(name for name in late if name)}; "
            "look at the p50 of these."
        )
    if any(not outcome.by_kernel for outcome in outcomes.values()):
        notes.append("The kernel did not tell when frames were sent: those times are the reference's own.")
    notes.append(f"Versions: {_versions(peers, outcomes)}.")
    return notes


def told(result: Mapping[str, Any]) -> str:
    """How the user of a peer learned of the break."""
    kinds: dict[str, int] = {}
    for kind, *_ in result["told"]:
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in kinds.items())


def cut(peers: Sequence[Peer], outcomes: Outcomes) -> Report:
    """Trades lost, doubled and reported at a cut of all lines."""
    title = "All connections to the exchange reset at once in full stream; it accepts new ones immediately"
    report = Report("peers_cut", title, list(CUT_COLUMNS))
    for peer in peers:
        outcome = outcomes[peer.key, CUT.key]
        if outcome.reason:
            report.rows.append(Row(peer.title, {}, outcome.reason))
            continue
        counted = outcome.account
        figures = {name: float(counted[name]) for name in ("received", "lost", "doubled", "reported")}
        figures |= {
            "repaired": float(counted["states"].get("repaired", 0)),
            "silence_s": counted["silence_s"],
        }
        if not counted["reported"]:
            del figures["repaired"]
        words = told(outcome.result)
        report.rows.append(Row(peer.title, figures, f"told by {words}" if words else "told nothing"))
        report.notes += [f"{peer.title}: {text}" for text in _cut_notes(peer, counted)]
        if peer.engine:
            report.checks += [
                Check(f"{peer.title}, trades lost", float(counted["lost"]), "<=", 0.0),
                Check(f"{peer.title}, trades doubled", float(counted["doubled"]), "<=", 0.0),
            ]
    report.notes.append(
        "Ids rise by one per symbol; lost are those between the first that came and the last that the "
        "simulator's REST knows, up to a second before the end."
    )
    return report


def _cut_notes(peer: Peer, counted: Mapping[str, Any]) -> list[str]:
    notes = list(peer.cut_notes)
    if peer.takes == "aggTrade":
        notes.append(
            f"received are aggregates; {counted['lost_ids']:,} of them lost, which merged the trades shown."
        )
    if counted["stood_in"]:
        notes.append(f"{counted['stood_in']:,} trades came as part of a stand-in, not as themselves.")
    if counted["unseen"]:
        notes.append(f"nothing came of {', '.join(counted['unseen'])}.")
    return notes
