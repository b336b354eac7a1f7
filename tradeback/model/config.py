"""The configuration's shape and defaults. Reading files and the environment is `tradeback.settings`."""

from typing import Annotated, Literal

import msgspec

LogLevel = Literal["debug", "info", "warning", "error"]
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
"""A duration. The field's name ends in `_s`; files and environment write it `15s` under the name without."""

DEFAULT_SYMBOLS = (
    "BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT",
    "DOGEUSDT", "ADAUSDT", "TRXUSDT", "AVAXUSDT", "LINKUSDT",
)  # fmt: skip


class ServerConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The one port that serves HTTP and WebSocket."""

    host: str = "127.0.0.1"
    port: Port = 8080
    read_timeout_s: Seconds = 15.0
    write_timeout_s: Seconds = 15.0
    origins: tuple[str, ...] = ()
    """Other sites (scheme://host[:port]) whose pages may read and open sockets; "*": any, without session."""
    proxies: tuple[str, ...] = ()
    """Networks (CIDR) of proxies whose word on the client's address, host and TLS is taken."""


class ExchangeConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Where the market data comes from."""

    ws_endpoint: str = "wss://stream.binance.com:9443"
    ws_endpoint_b: str = "auto"
    """Where line B connects; "auto": another host where the exchange is known to have one, else the same."""
    rest_endpoint: str = "https://api.binance.com"
    symbols: tuple[str, ...] = DEFAULT_SYMBOLS
    """Symbols to subscribe; ("*",) means every symbol that trades."""
    max_connections: Positive = 30
    lines: Annotated[int, msgspec.Meta(ge=1, le=2)] = 2
    connect_timeout_s: Seconds = 10.0
    idle_timeout_s: Seconds = 90.0
    """No byte for this long, pings included (the exchange sends one every 20 s): replace the connection."""
    backoff_first_s: Seconds = 0.25
    backoff_max_s: Seconds = 30.0
    stand_in_after_s: Seconds = 2.0
    """How long after an aggTrade its trades may still come before it stands in for them."""
    gap_after_s: Seconds = 1.0
    """How long another line may still bring a missing id before that is a gap."""
    repair_max_age_s: Seconds = 3_600.0
    """Older trades are not fetched by REST, and a gap is not tried for longer: it is unrepairable then."""
    repair_max_trades: Positive = 200_000
    """Of a larger hole only the newest so many trades are fetched by REST."""
    rollover_min_s: Seconds = 20 * 3_600.0
    """A connection is replaced, new before old, at an age drawn between this and `rollover_max_s`: before
    the exchange cuts it, which it does after 24 h."""
    rollover_max_s: Seconds = 23 * 3_600.0
    rollover_overlap_s: Seconds = 1.0
    """How long the new connection delivers beside the old one before that is closed."""
    stall_after_s: Seconds = 5.0
    """A stream is never suspected before it was silent, or behind the other line, for this long."""
    clock_interval_s: Seconds = 60.0
    """How often the exchange's clock is compared with this machine's."""
    clock_apart_s: Seconds = 0.25
    """Warn when the two are further apart than this and the error of the estimate."""
    watch_refresh_s: Seconds = 5.0
    """How often the union of all market watches is read; a change made here is seen at once."""
    watch_grace_s: Seconds = 300.0
    """How long a symbol stays subscribed that nobody watches any more."""


class TapeConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The tape."""

    hot_rows: Positive = 131_072
    """Records kept in memory; a power of two. 64 bytes each."""
    segment_bytes: Positive = 64 * 1024 * 1024
    sync_interval_s: Seconds = 1.0
    """How often segments are synced to the disk (power loss); a killed process loses nothing anyway."""
    retention_bytes: Positive = 20 * 1024 * 1024 * 1024
    retention_age_s: Seconds = 7 * 86_400.0


class FeedConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The binary feed."""

    clients_max: Positive = 10_000
    clients_per_address: NotNegative = 7_500
    """Of one address (of IPv6: its /64), so that nobody alone takes all places; 0: no limit."""
    send_buffer_bytes: Positive = 64 * 1024
    """Kernel send buffer of one client; stale data cannot hide in more than this."""
    lag_max_s: Seconds = 10.0
    """A client that takes nothing for this long is closed (1013)."""
    enigma_interval_s: Seconds = 0.1
    """Shortest time between two Enigma messages of one symbol to one client."""
    workers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    """Processes besides the engine that serve WebSocket clients; 0: the engine does."""


class MysqlConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The registry's server; without a host the registry is a SQLite file under `data_dir`."""

    host: str = ""
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 3306
    database: str = "tradeback"
    user: str = "tradeback"
    password: str = ""
    timeout_s: Seconds = 5.0
    """Longest call, with everything that is repeated in it."""

    def __repr__(self) -> str:
        """Without the password: whoever logs a configuration gives nothing away."""
        return f"MysqlConfig({self.user}@{self.host}:{self.port}/{self.database})"


class InfluxConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """An archive of trades, bars and levels; none without a url."""

    url: str = ""
    token: str = ""
    """InfluxDB 1.x with authentication: `user:password`."""
    org: str = "tradeback"
    bucket: str = "tradeback"
    """InfluxDB 1.x: the database."""
    api: Literal["v2", "v1"] = "v2"
    timeout_s: Seconds = 10.0
    """Longest write of a batch; one of bars may take three times as long."""

    def __repr__(self) -> str:
        """Without the token."""
        return f"InfluxConfig({self.api}, {self.org}/{self.bucket})"


class RedisConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Newest values for other programs and nodes, and a capped stream; none without an address."""

    addr: str = ""
    """HOST:PORT."""
    user: str = ""
    """Of an access list (ACL); empty: the default user."""
    password: str = ""
    db: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    price_ttl_s: Seconds = 60.0
    """Prices and levels that no engine puts again for this long expire."""
    bars_ttl_s: Seconds = 1.0
    """How long an answer of bars is kept for others."""
    stream_entries: Positive = 5_000
    """Entries that the stream `ticks` keeps, about; each holds up to 1,000 records, 14 KB."""
    timeout_s: Seconds = 1.0
    """Longest wait for an answer; half of it for a connection."""

    def __repr__(self) -> str:
        """Without the password."""
        return f"RedisConfig({self.addr}/{self.db})"


class NatsConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The bus between nodes; without a url it is inside the process."""

    url: str = ""
    """`nats://USER:PASSWORD@HOST:4222`; several servers of one cluster with commas between them."""
    node: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,32}$")] = "hub"
    """Whose tape it is: the last word of `tradeback.ticks.<node>`. An edge follows the node of this name."""
    jetstream: bool = True
    """Keep the batches of the tape in a stream, which edges and late consumers read."""
    stream_bytes: Positive = 4 * 1024 * 1024 * 1024
    stream_age_s: Seconds = 7 * 86_400.0
    """Older batches leave the stream, and the oldest above `stream_bytes`."""
    timeout_s: Seconds = 3.0
    """Longest wait for an answer; a connection without a sign of life for two to three times that is left."""

    def __repr__(self) -> str:
        """Without the url, which may hold a password."""
        return f"NatsConfig({self.node})"


class AuthConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Who may read, and how long a session lasts."""

    mode: Literal["open", "required"] = "open"
    """open: reading needs no log-in. required: everything but health, log-in and the page's files does."""
    secure_cookie: bool = False
    """The session cookie goes over TLS only, also where no trusted proxy says that TLS is used."""
    session_idle_s: Seconds = 7 * 86_400.0
    """A session that is not used for this long ends."""
    session_max_s: Seconds = 30 * 86_400.0
    """And at this age in any case."""


class LimitConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Requests of one client (an address; of IPv6 its /64) that are served; 0: no limit.

    Four times as many may come at once, of log-ins ten.
    """

    read_per_second: NotNegative = 500
    history_per_second: NotNegative = 300
    """Bars, ticks, gaps, prices at a time."""
    write_per_second: NotNegative = 20
    connect_per_second: NotNegative = 2_500
    """WebSocket connections."""
    login_per_minute: NotNegative = 30
    """Beside the brakes on wrong passwords, which are not configured."""


class FeatureConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Parts that can be switched off."""

    enigma_enabled: bool = True
    aggregation_enabled: bool = True
    binary_websocket: bool = True


class Config(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The whole configuration."""

    server: ServerConfig = msgspec.field(default_factory=ServerConfig)
    exchange: ExchangeConfig = msgspec.field(default_factory=ExchangeConfig)
    tape: TapeConfig = msgspec.field(default_factory=TapeConfig)
    feed: FeedConfig = msgspec.field(default_factory=FeedConfig)
    auth: AuthConfig = msgspec.field(default_factory=AuthConfig)
    limit: LimitConfig = msgspec.field(default_factory=LimitConfig)
    feature: FeatureConfig = msgspec.field(default_factory=FeatureConfig)
    mysql: MysqlConfig = msgspec.field(default_factory=MysqlConfig)
    influx: InfluxConfig = msgspec.field(default_factory=InfluxConfig)
    redis: RedisConfig = msgspec.field(default_factory=RedisConfig)
    nats: NatsConfig = msgspec.field(default_factory=NatsConfig)
    data_dir: str = "data"
    """Where the tape and the embedded stores live."""
    log_level: LogLevel = "info"
    log_levels: tuple[str, ...] = ()
    """Of single components, like `line=debug`; `ops.components` lists them."""
    spin: bool = False
    """Never sleep: half the latency for one whole core."""
