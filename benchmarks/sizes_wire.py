"""Bytes per event of the recorded streams in every form: both versions of the feed, JSON, JSON packed.

All-in: headers and WebSocket framing. Nothing is timed, so one pass is enough whatever `--repeat` says.
"""

from benchmarks.harness import recorded
from benchmarks.harness.options import Options
from benchmarks.harness.report import Check, Column, Report, Row

NAME = "sizes_wire"
TITLE = "Bytes per event of recorded trades and quotes, all-in, in batches of 1 ms and 5 ms"
LINES_SMALL = 3_000
"""Of each file; the full size takes them all."""
LABELS = {
    "v2": "version 2, trades and quotes",
    "json": "combined-stream JSON, one message per event",
    "deflated": "the same with permessage-deflate",
    "deflated batches": "JSON arrays, one per batch, with permessage-deflate",
    "v2 trades": "version 2, trades only, per trade",
    "v1 trades": "version 1, trades only, per trade",
}


def run(options: Options) -> Report:
    """Encode the recordings in every form and count. What version 2 says is decoded and compared first."""
    from benchmarks.bench_wire_v2 import BYTES_MAX, sizes

    columns = [Column(str(window), f"{window} ms", 1) for window in BYTES_MAX]
    report = Report(NAME, TITLE, columns)
    try:
        data = recorded.load(None if options.full else LINES_SMALL)
    except FileNotFoundError as error:
        report.skipped = f"no recordings: {error.filename}"
        return report
    try:
        found = {window: sizes(data, window) for window in BYTES_MAX}
    except ValueError as error:
        report.wrong.append(str(error))
        return report
    for key, label in LABELS.items():
        report.rows.append(Row(label, {str(window): figures[key] for window, figures in found.items()}))
    for window, figures in found.items():
        report.checks.append(
            Check(f"version 2 in {window} ms batches, bytes", figures["v2"], "<=", BYTES_MAX[window])
        )
        report.notes.append(
            f"{window} ms: {figures['events']:,.0f} events, {figures['per frame']:.2f} in a batch; "
            f"CRC-32 of all frames {int(figures['checksum']):08x}."
        )
    return report
