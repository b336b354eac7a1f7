"""Every rule of the simulated exchange as a knob; the defaults are the documented values. Pure."""

from dataclasses import dataclass

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SimConfig:
    """Limits and life cycle of the double; sections 2, 3 and 7 of the Binance fact sheet."""

    host: str = "127.0.0.1"
    port: int = 0
    """Port of the streams; 0 takes a free one."""
    rest_port: int = 0
    """Port of REST; 0 takes a free one."""

    start_after_streams: int = 1
    """The market starts once this many subscriptions stand (streams summed over connections);
    0 starts it at once, -1 waits for `SimServer.play()`."""
    speed: float = 1.0
    """Market seconds per wall second; 0 plays as fast as the readers take it."""

    client_messages_per_s: int = 5
    streams_per_connection_max: int = 1_024
    control_bytes_max: int = 4_096
    connections_per_window: int = 300
    connection_window_s: float = 300.0
    ping_interval_s: float = 20.0
    pong_timeout_s: float = 60.0
    connection_life_s: float = 86_400.0
    life_rate: float = 1.0
    """Seconds of pings, ages and limits per second: at 1,000 a connection's day takes 86 s. The market keeps
    the pace of the real clock."""
    backlog_bytes_max: int = 8 * 1024 * 1024
    """Unsent bytes in user space after which a slow reader is cut. Binance does not document its bound."""
    backlog_grace_s: float = 5.0
    """At speed 0 the market waits this long for a reader above half the backlog before it is cut."""
    chunk_frames_max: int = 2_000
    """Frames produced before they are written and the loop may look at the sockets again."""

    weight_per_minute: int = 6_000
    ban_after_ignored: int = 10
    """Requests sent in spite of a 429, within its minute, before the address is banned with 418."""
    ban_first_s: float = 120.0
    ban_max_s: float = 3 * 86_400.0
