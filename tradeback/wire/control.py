"""Control messages of the feed: parsed objects to typed requests, and the answers. Pure.

JSON text both ways; reading and writing JSON is the caller's business. Requests:

    {"type":"subscribe","symbols":["BTCUSDT"],"channels":["trades"]}    symbols may be "*" = all
    {"type":"unsubscribe","symbols":["BTCUSDT"]}                        without channels: from all of them
    {"type":"ping"}
    {"type":"resume","epoch":E,"sequence":N}                            version 2

Answers: subscribed, unsubscribed, pong, enigma (version 1), resumed or resume_refused (version 2), and error
with one of the codes below. Unasked: auto_subscribe, and unsubscribed, of the session's market watch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tradeback.model.limits import SYMBOLS_PER_REQUEST_MAX
from tradeback.model.symbols import SYMBOL_BYTES_MAX, Symbol

Message = dict[str, Any]

TRADES: Final = "trades"
ENIGMA: Final = "enigma"
QUOTES: Final = "quotes"
GAPS: Final = "gaps"
CHANNELS: Final = (TRADES, ENIGMA)
"""What version 1 carries."""
CHANNELS_V2: Final = (TRADES, QUOTES, ENIGMA, GAPS)
EVERY_SYMBOL: Final = "*"
EPOCH_MAX: Final = (1 << 32) - 1
SEQUENCE_MAX: Final = (1 << 53) - 1
"""What a JavaScript number holds exactly."""

UNKNOWN_SYMBOL: Final = "unknown_symbol"
BAD_JSON: Final = "bad_json"
UNKNOWN_TYPE: Final = "unknown_type"
TOO_MANY_SYMBOLS: Final = "too_many_symbols"
BAD_REQUEST: Final = "bad_request"
DISABLED: Final = "disabled"
FORBIDDEN_SYMBOL: Final = "forbidden_symbol"
TOO_MANY_REQUESTS: Final = "too_many_requests"
ERROR_CODES: Final = frozenset(
    {
        UNKNOWN_SYMBOL,
        BAD_JSON,
        UNKNOWN_TYPE,
        TOO_MANY_SYMBOLS,
        BAD_REQUEST,
        DISABLED,
        FORBIDDEN_SYMBOL,
        TOO_MANY_REQUESTS,
    }
)

SHOWN_MAX: Final = 10
"""Names that an error message repeats at most."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Names as the client wrote them, each once; `everything` when "*" was among them."""

    names: tuple[str, ...]
    everything: bool
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """The same; `channels` are all of them when the client named none."""

    names: tuple[str, ...]
    everything: bool
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """Wants a pong."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Wants everything from `sequence` of `epoch` on."""

    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that is answered with an error and nothing else."""

    code: str
    message: str


Request = Subscribe | Unsubscribe | Ping | Resume | Refused


def parse(message: object, version: int = 1) -> Request:
    """A decoded JSON value to a request of a feed version. Never raises: what is wrong comes as `Refused`."""
    if not isinstance(message, Mapping):
        return Refused(BAD_REQUEST, 'a message is an object such as {"type":"ping"}')
    kind = message.get("type")
    if kind == "ping":
        return Ping()
    if kind == "subscribe" or kind == "unsubscribe":
        return _parse_symbols(str(kind), message, version)
    if kind == "resume" and version > 1:
        return _parse_resume(message)
    known = ("subscribe", "unsubscribe", "ping") if version == 1 else _KINDS_V2
    if not isinstance(kind, str):
        return Refused(BAD_REQUEST, f'a message has a "type": {", ".join(known[:-1])} or {known[-1]}')
    return Refused(UNKNOWN_TYPE, f"type {_short(kind)} is not known; known: {', '.join(known)}")


_KINDS_V2: Final = ("subscribe", "unsubscribe", "ping", "resume")


def _parse_resume(message: Mapping[Any, Any]) -> Request:
    epoch, sequence = message.get("epoch"), message.get("sequence")
    for name, value, most in (("epoch", epoch, EPOCH_MAX), ("sequence", sequence, SEQUENCE_MAX)):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
            return Refused(BAD_REQUEST, f'resume needs "{name}": an integer from 1 to {most}')
    assert isinstance(epoch, int)
    assert isinstance(sequence, int)
    return Resume(epoch, sequence)


def _parse_symbols(kind: str, message: Mapping[Any, Any], version: int) -> Request:
    listed = message.get("symbols")
    if listed == EVERY_SYMBOL:
        listed = [EVERY_SYMBOL]
    if not isinstance(listed, list) or not listed:
        return Refused(BAD_REQUEST, f'{kind} needs "symbols": a list of names, or "*" for all')
    if len(listed) > SYMBOLS_PER_REQUEST_MAX:
        return Refused(
            TOO_MANY_SYMBOLS,
            f'{len(listed)} symbols in one request; the most is {SYMBOLS_PER_REQUEST_MAX}, or "*" for all',
        )
    if not all(isinstance(name, str) and name for name in listed):
        return Refused(BAD_REQUEST, f'every entry of "symbols" in {kind} is a name')
    carried = CHANNELS if version == 1 else CHANNELS_V2
    default = (TRADES,) if kind == "subscribe" else carried
    channels = _parse_channels(message.get("channels"), default, carried, version)
    if isinstance(channels, Refused):
        return channels
    names = tuple(dict.fromkeys(name for name in listed if name != EVERY_SYMBOL))
    made = Subscribe if kind == "subscribe" else Unsubscribe
    return made(names, EVERY_SYMBOL in listed, channels)


def _parse_channels(
    listed: object, default: tuple[str, ...], carried: tuple[str, ...], version: int
) -> tuple[str, ...] | Refused:
    if listed is None:
        return default
    allowed = ", ".join(carried)
    if not isinstance(listed, list) or not listed:
        return Refused(BAD_REQUEST, f'"channels" is a list; tradeback.v{version} carries {allowed}')
    for name in listed:
        if name not in carried:
            return Refused(
                BAD_REQUEST,
                f"channel {_short(name)} is not in tradeback.v{version}, which carries {allowed}",
            )
    return tuple(name for name in carried if name in listed)


def _short(value: object) -> str:
    """A client's own word, safe and short enough to be repeated to it."""
    text = repr(value)
    return text if len(text) <= 2 * SYMBOL_BYTES_MAX else f"{text[: 2 * SYMBOL_BYTES_MAX]}..."


def subscribed(symbols: Iterable[Symbol], position: tuple[int, int] | None = None) -> Message:
    """Answer to subscribe: the wire id and the decimals of each symbol.

    With `position` (version 2) also the epoch and the sequence from which on records are delivered.
    """
    described = {symbol.symbol: _described(symbol) for symbol in symbols}
    answer: Message = {"type": "subscribed", "symbols": described}
    if position is not None:
        answer["epoch"], answer["sequence"] = position
    return answer


def _described(symbol: Symbol) -> dict[str, int]:
    return {
        "id": symbol.id,
        "price_precision": symbol.price_precision,
        "quantity_precision": symbol.quantity_precision,
    }


def auto_subscribe(symbol: Symbol, position: tuple[int, int] | None = None) -> Message:
    """A symbol of the session's market watch is delivered from now on, by the same rules as a subscription
    to its trades. `position` as in `subscribed`."""
    data: dict[str, Any] = {"symbol": symbol.symbol, **_described(symbol)}
    if position is not None:
        data["epoch"], data["sequence"] = position
    return {"type": "auto_subscribe", "data": data}


def unsubscribed(names: Iterable[str]) -> Message:
    """Answer to unsubscribe: the names that are no longer delivered. Unasked: they left the market watch."""
    return {"type": "unsubscribed", "symbols": list(names)}


def resumed(epoch: int, first: int, until: int) -> Message:
    """Answer to resume: the records from `first` on follow, up to `until` (exclusive), then live ones."""
    return {"type": "resumed", "epoch": epoch, "sequence": first, "until": until}


def resume_refused(reason: str) -> Message:
    """Answer to resume: nothing of it is delivered; a snapshot follows, then live records."""
    return {"type": "resume_refused", "reason": reason}


def pong(wall_ms: int) -> Message:
    """Answer to ping, with the server's clock in ms."""
    return {"type": "pong", "timestamp": wall_ms}


def error(code: str, message: str) -> Message:
    """A refusal; `code` is one of ERROR_CODES."""
    return {"type": "error", "code": code, "message": message}


def unknown_symbols(names: list[str]) -> Message:
    """The error that names symbols which do not exist here."""
    return error(UNKNOWN_SYMBOL, f"unknown {_listed(names)}; GET /api/v1/symbols lists them")


def forbidden_symbols(names: list[str]) -> Message:
    """The error that names symbols which are not on the session's list."""
    return error(FORBIDDEN_SYMBOL, f"this session may not see {_listed(names)}")


def _listed(names: list[str]) -> str:
    shown = ", ".join(_short(name) for name in names[:SHOWN_MAX])
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return f"{'symbol' if len(names) == 1 else 'symbols'} {shown}{more}"


def disabled_channel(channel: str, key: str) -> Message:
    """The error for a channel that the configuration key switches off."""
    return error(DISABLED, f"channel {channel} is switched off here: {key} is false")


def enigma(data: Mapping[str, Any]) -> Message:
    """One symbol's Enigma; `data` as GET /symbols/{symbol}/enigma answers it."""
    return {"type": "enigma", "data": data}
