"""The feed: clients come and go here, the path serves them, slow readers are watched.

Everything runs on the loop thread. The port opens before the kernels are loaded: clients may connect
and subscribe at once; rows flow after `attach_kernels`.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

import orjson
from picows import WSCloseCode, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

from tradeback.feed.admission import NOBODY, Admission
from tradeback.feed.client import Client
from tradeback.feed.counts import Counts, families
from tradeback.feed.enigma import EnigmaChannel, EnigmaOf
from tradeback.feed.known import Known, enigma_message, latest_of, nothing_known
from tradeback.feed.ladder import LagWatch, Verdict
from tradeback.feed.lane import Lane
from tradeback.feed.lane_v1 import LaneV1, LatestPrice
from tradeback.feed.lane_v2 import LaneV2
from tradeback.feed.negotiate import Declined, negotiate
from tradeback.feed.requests import Requests
from tradeback.model.clock import Clock
from tradeback.model.config import FeatureConfig, FeedConfig
from tradeback.model.symbols import SymbolTable
from tradeback.ops.beat import until_beat
from tradeback.ops.health import ComponentHealth
from tradeback.ops.metrics import Family
from tradeback.path.path import Path
from tradeback.wire import control

SWEEP_S = 1.0
"""How often clients are looked after: pings, stuck readers."""
PING_IDLE_S = 30.0
"""A client gets a ping when for this long nothing came from it and nothing was sent to it."""
PONG_WAIT_S = 30.0
"""A client that is silent this long after a ping is cut."""
DRAIN_S = 2.0
"""How long `close` waits for clients to take what they have missed."""
FAREWELL_S = 1.0
"""And then for clients to answer their CLOSE."""
RETRY_AFTER_S = 5
REASON_BYTES_MAX = 120
"""A CLOSE frame has room for 123 bytes of text (RFC 6455 section 5.5)."""
ALL_FEATURES = FeatureConfig()
"""Nothing switched off."""


def no_price(symbol_id: int) -> float | None:
    """For a feed without history."""
    return None


def no_enigma(symbol_id: int) -> None:
    """For a feed without Enigma."""
    return


class Attends(Protocol):
    """Who looks after the sockets of sessions: `feed.attendance.Attendance`."""

    def arrived(self, client: Client) -> None:
        """A socket with a session is open."""

    def left(self, client: Client) -> None:
        """And closed."""

    def symbols_came(self) -> None:
        """There are symbols that nobody knew."""


class Feed:
    """The WebSocket feed over one tape, a station of `path`.

    `latest_price` and `enigma_of` ask the derived series by symbol id; both may answer None. `known` is that
    series itself (version 2 sends it in full), once there is one. `features`:
    without binary_websocket every upgrade gets a 404, without enigma_enabled the channel is refused.
    """

    def __init__(
        self,
        config: FeedConfig,
        clock: Clock,
        symbols: SymbolTable,
        path: Path,
        *,
        latest_price: LatestPrice = no_price,
        enigma_of: EnigmaOf = no_enigma,
        known: Known = nothing_known,
        features: FeatureConfig = ALL_FEATURES,
    ) -> None:
        self._enabled = features.binary_websocket
        self.send_buffer_bytes = config.send_buffer_bytes
        self.dead_peer_ms = int(1_000 * (PING_IDLE_S + PONG_WAIT_S + config.lag_max_s))
        """The kernel cuts a client whose host acknowledges nothing for this long (TCP_USER_TIMEOUT)."""
        self.now_s = 0.0
        """The loop's time at the last sweep: good enough for idleness, and free."""
        self.clients: set[Client] = set()
        self.by_address: dict[str, int] = {}
        """How many of them each address has (`Admission.client`)."""
        self.publish_latency = path.publish_latency
        self.ping_idle_s = PING_IDLE_S
        self.pong_wait_s = PONG_WAIT_S
        self._config = config
        self._clock = clock
        self.path = path
        self._tape = path.tape
        self.counts = Counts()
        self.v1 = LaneV1(path, symbols, latest_price, self.counts)
        self.v2 = LaneV2(path, symbols, latest_of(known), self.counts, self._live_again, self._lost)
        self.lanes: tuple[Lane, ...] = (self.v1, self.v2)
        self.enigma = EnigmaChannel(
            symbols,
            self.v1.table.trades_seen,
            enigma_of,
            lambda symbol_id: enigma_message(known(), symbol_id, path.tape, clock.wall_ns()),
        )
        self.requests = Requests(clock, symbols, self.v2, self.enigma, features, lambda: self.ready)
        self.lagging: set[Client] = set()
        self.attendance: Attends | None = None
        """Told of sockets with a session."""
        self._since_ns = clock.wall_ns()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._empty: asyncio.Event | None = None
        self._moved = asyncio.Event()
        """Some client has caught up, or gone."""
        self._leaving = False
        self._farewell = WSCloseCode.GOING_AWAY, "the server is stopping"

    # The engine's side.

    @property
    def trades(self) -> int:
        """Trades published since the start."""
        return self.path.trades

    def attach_kernels(self) -> None:
        """From now on records may come: the path serves the clients. The symbols are known.

        Loop thread; the kernel modules were imported by a thread before.
        """
        self.path.attach()
        for lane in self.lanes:
            lane.attach()
        for client in self.lagging:
            client.cursor = client.lane.fanout.position
        for client in list(self.clients):
            if client.lane is self.v2:
                self.v2.describe(client)
            if client.deferred and not client.lagging and client.replay is None:
                self._serve_deferred(client)  # it named symbols that nobody knew yet
        self._since_ns = self._clock.wall_ns()

    def start(self) -> None:
        """Begin to look after clients. Needs the running loop."""
        self.now_s = asyncio.get_running_loop().time()
        self._arm_sweep()

    def turn_away(self, *, restarting: bool = False) -> None:
        """From now on nobody is let in (503). `restarting`: what `close` will say to those who are here."""
        if restarting:
            self._farewell = WSCloseCode.SERVICE_RESTART, "the server is restarting; connect again"
        self._leaving = True

    async def close(self) -> None:
        """Let those who are behind take what they missed, close all, give them a moment to answer."""
        self._leaving = True
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while self._dismiss() and self.ready:
                    self._moved.clear()
                    await self._moved.wait()
        await self.v2.replays.close()
        self._dismiss(all_of_them=True)
        if self.clients:
            self._empty = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), FAREWELL_S)
        for client in list(self.clients):
            client.abort()
        await asyncio.sleep(0)

    def _dismiss(self, *, all_of_them: bool = False) -> int:
        """Close the clients that have everything; how many are still behind."""
        behind = 0
        for client in list(self.clients):
            if not all_of_them and (client.lagging or client.replay is not None):
                behind += not client.closing
            else:
                client.close(*self._farewell)
        return behind

    @property
    def ready(self) -> bool:
        """True once the kernels are attached."""
        return self.v1.fanout.attached

    # The front's side.

    def accept(
        self, request: WSUpgradeRequest, admission: Admission = NOBODY
    ) -> Client | WSUpgradeResponseWithListener:
        """Answer an upgrade request: a client, or an HTTP error. `admission`: whose it is."""
        if self._leaving:
            return _decline(Declined(503, "stopping", "the feed is stopping; try again later", RETRY_AFTER_S))
        if not self._enabled:
            return _decline(Declined(404, "not_found", "the feed is switched off (feature.binary_websocket)"))
        outcome = negotiate(request.path.decode("latin-1"), request.headers)
        if isinstance(outcome, Declined):
            return _decline(outcome)
        if len(self.clients) >= self._config.clients_max:
            self.counts.refused += 1
            full = Declined(503, "too_many_clients", "the feed is full; try again later", RETRY_AFTER_S)
            return _decline(full)
        if self._has_enough(admission.client):
            self.counts.refused += 1
            words = (
                f"{admission.client} has {self._config.clients_per_address} sockets open: close some first"
            )
            return _decline(Declined(429, "too_many_sockets", words, RETRY_AFTER_S))
        client = Client(self, self.v2 if outcome.version == 2 else self.v1, admission)
        if outcome.subprotocol is None:
            return client
        response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": outcome.subprotocol})
        return WSUpgradeResponseWithListener(response, client)

    def _has_enough(self, address: str) -> bool:
        """Whether this address has as many clients as it may."""
        most = self._config.clients_per_address
        return bool(address and most) and self.by_address.get(address, 0) >= most

    # The clients' side.

    def connected(self, client: Client) -> None:
        self.clients.add(client)
        address = client.admission.client
        if address:
            self.by_address[address] = self.by_address.get(address, 0) + 1
        self.counts.connected += 1
        if self.attendance is not None and client.admission.session is not None:
            self.attendance.arrived(client)

    def disconnected(self, client: Client) -> None:
        self.leaving(client)
        address = client.admission.client
        if address and client in self.clients:
            self.by_address[address] -= 1
            if not self.by_address[address]:
                del self.by_address[address]
        self.clients.discard(client)
        if self.attendance is not None and client.admission.session is not None:
            self.attendance.left(client)
        if not self.clients and self._empty is not None:
            self._empty.set()

    def leaving(self, client: Client) -> None:
        """Nothing is delivered to this client any more."""
        self._moved.set()
        client.lane.leaving(client)
        self.enigma.change(client, frozenset())
        self.lagging.discard(client)

    def request(self, client: Client, text: bytes) -> None:
        """One text message of a live client."""
        self.requests.handle(client, text)
        if self.enigma.wanted and "enigma" not in self._timers:
            self._publish_enigma()

    def refuse_binary(self, client: Client) -> None:
        """Answer a binary message: clients speak JSON text."""
        answer = control.error(control.BAD_REQUEST, "binary messages are not understood; send JSON text")
        self.requests.refuse(client, answer)

    def stalled(self, client: Client) -> None:
        """A client's socket is full: from here on only a cursor is kept for it."""
        if client.lagging:
            return
        client.lagging = True
        client.cursor, client.epoch = client.lane.fanout.position, self._tape.epoch
        client.watch = LagWatch(asyncio.get_running_loop().time(), client.unsent_bytes())
        self.lagging.add(client)
        self.counts.lagged += 1
        client.lane.fanout.stalled(client)
        client.transport.pause_reading()

    def drained(self, client: Client) -> None:
        """A client has taken everything: it gets what it missed, conflated, and is live again."""
        if client.lane.behind(client, self._oldest_hot()):
            self._give_up(client, Verdict.BEHIND)
            return
        client.lagging = False
        self.lagging.discard(client)
        client.lane.drained(client)
        if not client.lagging and client.replay is None:
            self._live_again(client)
        elif not client.lagging:
            client.transport.resume_reading()

    def _live_again(self, client: Client) -> None:
        """A client has caught up: now what waited meanwhile."""
        if not client.lagging:
            self.enigma.drained(client)
        if client.lagging:
            return
        client.watch = None
        self._moved.set()
        self._serve_deferred(client)
        if not client.lagging and not client.closing:
            client.transport.resume_reading()

    def _lost(self, client: Client, reason: str) -> None:
        """A client cannot be brought up to date any more."""
        self.counts.aborted += 1
        client.close(WSCloseCode.TRY_AGAIN_LATER, reason[:REASON_BYTES_MAX])

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call back once."""
        asyncio.get_running_loop().call_later(delay_s, call)

    # Looking after them.

    def _serve_deferred(self, client: Client) -> None:
        waiting, client.deferred = client.deferred or [], None
        for place, text in enumerate(waiting):
            if client.closing:
                return
            if client.lagging or client.replay is not None or client.deferred:
                client.deferred = (client.deferred or []) + waiting[place:]
                return
            self.request(client, text)

    def _arm_sweep(self) -> None:
        delay_s = until_beat(min(SWEEP_S, self._config.lag_max_s / 4))
        self._timers["sweep"] = asyncio.get_running_loop().call_later(delay_s, self._sweep)

    def _sweep(self) -> None:
        """Give up stuck clients, ping silent ones, cut dead ones."""
        self._arm_sweep()
        now_s = self.now_s = asyncio.get_running_loop().time()
        oldest = self._oldest_hot()
        self.v2.beat(self._clock.wall_ns())
        for client in list(self.lagging):
            if client.watch is None:
                continue
            verdict = client.watch.judge(
                now_s,
                client.unsent_bytes(),
                self._config.lag_max_s,
                behind=client.lane.behind(client, oldest),
            )
            if verdict is not Verdict.WAIT:
                self._give_up(client, verdict)
        ping_before = now_s - self.ping_idle_s
        for client in [client for client in self.clients if client.heard_s < ping_before]:
            if not client.closing and not client.lagging:
                self._probe(client, ping_before - self.pong_wait_s)

    def _probe(self, client: Client, cut_before_s: float) -> None:
        """Ping a silent client, or cut it. One that keeps up with its data is no silent one.

        Behind data a dead peer is noticed without pings: its socket fills, or the kernel misses the
        acknowledgements. Simple clients that never answer a ping therefore live as long as data flows.
        """
        group = client.group
        if group is not None and group.batches != client.batches:
            client.batches = group.batches
            client.heard_s = self.now_s
            client.pinged = False
        elif not client.pinged:
            client.ping()
        elif client.heard_s < cut_before_s:
            self.counts.silent += 1
            client.abort()

    def _give_up(self, client: Client, verdict: Verdict) -> None:
        self.counts.aborted += 1
        client.close(WSCloseCode.TRY_AGAIN_LATER, verdict.value)

    def _oldest_hot(self) -> int:
        return self._tape.next_sequence - self._tape.hot_rows

    def _publish_enigma(self) -> None:
        """Send what changed, and come again while anybody listens."""
        self._timers.pop("enigma", None)
        self.enigma.publish()
        if self.enigma.wanted:
            self._timers["enigma"] = asyncio.get_running_loop().call_later(
                self._config.enigma_interval_s, self._publish_enigma
            )

    # What operators see.

    def health(self) -> ComponentHealth:
        """Starting until the kernels are attached, then ok."""
        return ComponentHealth("feed", "ok" if self.ready else "starting", self._since_ns)

    def collect(self) -> Iterator[Family]:
        """The feed's numbers."""
        return families(self)


def _decline(outcome: Declined) -> WSUpgradeResponseWithListener:
    body = orjson.dumps({"error": {"code": outcome.code, "message": outcome.message}})
    headers = {"Content-Type": "application/json"}
    if outcome.retry_after_s:
        headers["Retry-After"] = str(outcome.retry_after_s)
    response = WSUpgradeResponse.create_error_response(outcome.status, body, headers)
    return WSUpgradeResponseWithListener(response, None)
