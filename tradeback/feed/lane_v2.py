"""Version 2 of the feed: exact, complete, resumable.

A client that falls behind loses no trade: when its socket takes bytes again it is served from the tape,
quotes conflated to the latest of each symbol, until it has caught up (see `feed.replay`). One that was away
asks for everything since its last sequence, and gets all of it or a refusal.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import orjson

from tradeback.derive.layout import States
from tradeback.feed.client import Client
from tradeback.feed.counts import Counts
from tradeback.feed.fanout import FanOut
from tradeback.feed.interest import NOTHING, Interest
from tradeback.feed.known import Latest
from tradeback.feed.replay import Encoder, Replay, Replays, Tape
from tradeback.feed.subjects import news, subjects_of, union, without
from tradeback.feed.v2_table import V2Scratch, V2Table
from tradeback.model.record import QUOTE, TRADE, Rows, empty_rows
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.path.path import Path
from tradeback.tape.cursor import Cursor
from tradeback.wire import control
from tradeback.wire import v2_layout as at
from tradeback.wire.frames import BINARY, server_frame
from tradeback.wire.v2_encode import heartbeat


class LaneV2:
    """See `feed.lane`."""

    version = 2

    def __init__(
        self,
        path: Path,
        symbols: SymbolTable,
        latest: Latest,
        counts: Counts,
        live: Callable[[Client], None],
        lost: Callable[[Client, str], None],
    ) -> None:
        self._scratch = V2Scratch()
        self.fanout = FanOut(path, V2Table(self._scratch), self.version)
        self.encoder = Encoder(self._scratch)
        tape: Any = path.tape  # a full tape wherever version 2 is served
        self.replays = Replays(tape, self.encoder, lambda client: self._caught_up(client, live), lost)
        self._tape: Tape = tape
        self._symbols, self._latest, self._counts = symbols, latest, counts
        self._beats: dict[int, int] = {}
        self.ahead_max = 0
        """So many records a resume may be ahead of the tape. On an edge: the client was at another one, which
        had them before. It is served once they are here."""

    def attach(self) -> None:
        """Take the kernels."""
        from tradeback.kernel.jit import address
        from tradeback.wire.v2_kernel import encode_groups_v2

        self.encoder.attach()
        self.replays.attach()
        self.fanout.attach(address(encode_groups_v2))

    def subscribe(
        self, client: Client, channels: tuple[str, ...], asked: Interest, symbols: list[Symbol]
    ) -> None:
        """First what is known of the subjects that are new, or what a resume asked for; then live ones.

        The market watch that a resume has parked comes along: a resume belongs to one subscription.
        """
        for symbol in symbols:
            self._scratch.learn(symbol)
        wanted = union(subjects_of(channels, asked), subjects_of((control.TRADES,), client.parked))
        client.parked = NOTHING
        fresh = news(client.interest, wanted)
        if not fresh:
            return
        held, client.interest = client.interest, union(client.interest, wanted)
        sequence = self.fanout.position
        if held == NOTHING:
            client.live_from = sequence
        elif client.live_from != sequence:
            client.live_from = None
        self.fanout.leave(client)
        asked_for, client.resume_from = client.resume_from, None
        if asked_for is not None and self.resume(client, *asked_for):
            return
        self._send_snapshot(client, fresh)
        if not client.lagging and not client.closing:
            self.fanout.enter(client)

    def learn(self, symbols: Iterable[Symbol]) -> None:
        """Send these on the grids that they have now; whoever gets them has been told, or is told at once."""
        for symbol in symbols:
            self._scratch.learn(symbol)

    def describe(self, client: Client) -> None:
        """Say once more what a client's symbols are: their grids, or which there are, may have changed."""
        if client.interest == NOTHING:
            return
        ids = {subject % at.SYMBOL_IDS for subject in client.interest}
        symbols = [symbol for symbol in self._symbols if 0 in ids or symbol.id in ids]
        for symbol in symbols:
            self._scratch.learn(symbol)
        client.send_text(orjson.dumps(control.subscribed(symbols)))

    def unsubscribe(
        self, client: Client, channels: tuple[str, ...], gone: Interest, known: list[int]
    ) -> None:
        """Deliver these no more."""
        self.fanout.leave(client)
        client.interest = without(client.interest, subjects_of(channels, gone), known)
        if not client.lagging and not client.closing:
            self.fanout.enter(client)

    def position(self, client: Client) -> tuple[int, int]:
        """From where on records are delivered."""
        return self._tape.epoch, self.fanout.position

    def resume(self, client: Client, epoch: int, sequence: int) -> bool:
        """Everything from `sequence` of `epoch` on, then live; or a refusal. True when it is served.

        Before the first subscribe it is only noted, and True.
        """
        if client.interest == NOTHING:
            client.resume_from = epoch, sequence
            return True
        epoch, reason = self._place(client, epoch, sequence)
        if reason:
            self._counts.resumes_refused += 1
            client.send_text(orjson.dumps(control.resume_refused(reason)))
            return False
        self._counts.resumed += 1
        position = self.fanout.position
        is_ahead = sequence > self._tape.next_sequence
        end = sequence if is_ahead else client.live_from or position
        client.send_text(orjson.dumps(control.resumed(epoch, sequence, end)))
        self.fanout.leave(client)
        cursor = Cursor(self._tape, sequence, epoch)
        until = client.live_from if client.live_from != position and not is_ahead else None
        self.replays.begin(Replay(client, cursor, conflate=False, until=until, go_on=position))
        return True

    def refresh(self, client: Client) -> None:
        """After a refused resume: what is known of all it wants."""
        if not client.lagging and not client.closing:
            self._send_snapshot(client, client.interest)

    def _place(self, client: Client, epoch: int, sequence: int) -> tuple[int, str]:
        """The epoch in which a resume goes on, and why it must be refused; empty: it need not be."""
        if client.live_from is None:
            return epoch, "subscriptions began at different sequences; resume right after the first subscribe"
        found = self._tape.resume(epoch, sequence)
        if found != (epoch, sequence) and not self._is_end(epoch, sequence, found):
            words = f"epoch {epoch}, sequence {sequence} is not of this tape, whose epoch is"
            return epoch, f"{words} {self._tape.epoch}"
        return found[0], self._refusal(client, found[0], sequence)

    def _is_end(self, epoch: int, sequence: int, found: tuple[int, int]) -> bool:
        """Whether that epoch ended right there and the next one follows: then all that a client with this
        position has seen is still on the tape, and nothing lies between."""
        before = epoch, sequence - 1
        return found[1] == sequence and sequence > 1 and self._tape.resume(*before) == before

    def _refusal(self, client: Client, epoch: int, sequence: int) -> str:
        tape = self._tape
        if tape.next_sequence < sequence <= tape.next_sequence + self.ahead_max and epoch == tape.epoch:
            return ""
        if sequence > tape.next_sequence:
            return f"sequence {sequence} is ahead of this tape, which is at {tape.next_sequence}"
        if sequence < tape.oldest_sequence:
            return f"sequence {sequence} is gone; the tape holds {tape.oldest_sequence} and later"
        if client.live_from is not None and sequence > client.live_from:
            return f"sequence {sequence} is later than the subscription, which began at {client.live_from}"
        return ""

    def behind(self, client: Client, oldest_hot: int) -> bool:
        """What it missed is only sent unasked while memory holds it; a resume may go further back."""
        return client.replay is None and client.cursor < oldest_hot

    def drained(self, client: Client) -> None:
        """Go on from where it was."""
        if client.replay is not None:
            client.replay.wake()
        elif client.interest != NOTHING and client.cursor < self.fanout.position:
            self._counts.caught_up += 1
            cursor = Cursor(self._tape, client.cursor, client.epoch)
            self.replays.begin(Replay(client, cursor, conflate=True))
        else:
            self.fanout.enter(client)

    def leaving(self, client: Client) -> None:
        """Deliver nothing more."""
        self.fanout.leave(client)
        if client.replay is not None:
            client.replay.wake()

    def beat(self, wall_ns: int) -> None:
        """Tell groups to which nothing was sent since the last call where the tape is."""
        frame = server_frame(BINARY, heartbeat(self._tape.epoch, self.fanout.position, wall_ns))
        beats = {}
        for group in list(self.fanout.members()):
            if self._beats.get(group.index) == group.batches:
                for client in (*group.plain, *group.others):
                    client.write(frame)
            beats[group.index] = group.batches
        self._beats = beats

    def _caught_up(self, client: Client, live: Callable[[Client], None]) -> None:
        if not client.lagging:
            self.fanout.enter(client)
        live(client)

    def _send_snapshot(self, client: Client, subjects: Interest) -> None:
        rows = self._known_rows(subjects)
        if len(rows):
            sequence = self.fanout.position
            epoch = self._tape.epoch
            client.write(self.encoder.once(subjects, rows, epoch, sequence - len(rows), at.FRAME_SNAPSHOT))

    def _known_rows(self, subjects: Interest) -> Rows:
        """The last trade and the newest quote of every symbol in `subjects`, as records."""
        parts = [empty_rows(0)]
        for channel, fill in ((at.CHANNEL_TRADES, _last_trades), (at.CHANNEL_QUOTES, _newest_quotes)):
            ids = {subject % at.SYMBOL_IDS for subject in subjects if subject // at.SYMBOL_IDS == channel}
            if ids:
                parts.append(fill(self._latest(None if 0 in ids else ids)))
        return np.concatenate(parts)


def _last_trades(states: States) -> Rows:
    """The last trade of each symbol that has traded."""
    states = states[states["trade_id"] >= 0]
    rows = empty_rows(len(states))
    rows["kind"], rows["id"] = TRADE, states["trade_id"]
    for name in ("symbol_id", "recv_ns", "exchange_us", "price", "quantity"):
        rows[name] = states[name]
    return rows


def _newest_quotes(states: States) -> Rows:
    """The newest quote of each symbol that has one."""
    states = states[states["quote_recv_ns"] > 0]
    rows = empty_rows(len(states))
    rows["kind"], rows["recv_ns"], rows["symbol_id"] = QUOTE, states["quote_recv_ns"], states["symbol_id"]
    rows["price"], rows["quantity"] = states["bid"], states["bid_quantity"]
    rows["ask"], rows["ask_quantity"] = states["ask"], states["ask_quantity"]
    return rows
