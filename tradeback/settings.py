"""The configuration from file, environment and command line, into `model.config.Config`.

Later wins: defaults, then the YAML file, then the environment, then options of the command. Every value
remembers where it came from, so that a refusal names the file's line or the variable. A key is written
without the unit its field carries (`exchange.idle_timeout: 90s` fills `idle_timeout_s`), a variable is
the key in capitals with `_` for `.` (`EXCHANGE_IDLE_TIMEOUT`). A variable that is set but empty counts
as not set.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

import msgspec

from tradeback.model.address import split_address
from tradeback.model.config import Config, ExchangeConfig
from tradeback.model.errors import ConfigError
from tradeback.model.symbols import SYMBOL_BYTES_MAX
from tradeback.model.units import format_duration, format_size, parse_duration, parse_size
from tradeback.ops.components import parse_pair

OPTIONAL = {
    "influx.url", "influx.token", "mysql.host", "mysql.password", "nats.url", "redis.addr", "redis.password",
    "redis.user",
}  # fmt: skip
"""Keys that may be empty: there is no such server, or it wants no password."""

SERVERS = {"influx": "influx.url", "mysql": "mysql.host", "nats": "nats.url", "redis": "redis.addr"}
"""Section of a server -> the key that says that there is one; its other keys mean nothing without."""

LISTS = {"server.origins", "server.proxies", "log_levels"}
"""Keys that hold a list of words and may be empty."""

WATCHED_PREFIXES = ("AUTH_", "EXCHANGE_", "FEATURE_", "FEED_", "LIMIT_", "SERVER_", "TAPE_")
"""A variable that begins like this and is no key is a typing error, not somebody else's variable."""

_TRUE, _FALSE = ("true", "1", "on", "yes"), ("false", "0", "off", "no")
_SECRET = re.compile(r"password|token|secret", re.IGNORECASE)
_USER_INFO = re.compile(r"//[^/@\s]*@")
_SYMBOL = re.compile(r"[^\s/@\\\"',*?]+")


@dataclass(frozen=True, slots=True)
class Key:
    """One key: where its value goes and how it is written."""

    name: str
    """As in the file: `exchange.idle_timeout`."""
    path: tuple[str, ...]
    """Fields of `Config`: `("exchange", "idle_timeout_s")`."""
    type: Any
    default: Any

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return variable_of(self.name)

    def written(self, value: Any) -> str:
        """A value of this key as a file or variable holds it: 0.05 -> `50ms`."""
        if self.path[-1].endswith("_s"):
            return format_duration(value)
        if self.path[-1].endswith("_bytes"):
            return format_size(value)
        if isinstance(value, tuple):
            return ",".join(value)
        return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class _Given:
    value: Any
    origin: str


def variable_of(name: str) -> str:
    """Environment variable of a key: `feed.lag_max` -> `FEED_LAG_MAX`."""
    return name.upper().replace(".", "_")


def keys() -> dict[str, Key]:
    """Every key by name, in the order of `Config`."""
    return {key.name: key for key in _keys(Config, Config(), ())}


def _keys(struct: type[msgspec.Struct], defaults: Any, above: tuple[str, ...]) -> Iterator[Key]:
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        path, default = (*above, field.name), getattr(defaults, field.name)
        if isinstance(default, msgspec.Struct):
            yield from _keys(type(default), default, path)
        else:
            yield Key(".".join(path).removesuffix("_s"), path, hints[field.name], default)


def load(path: str | None, environ: Mapping[str, str], options: Mapping[str, Any] | None = None) -> Config:
    """The configuration, or ConfigError that names key, value, place and remedy.

    `path` is the file that `--config` named; without it CONFIG_PATH of `environ` may name one. `options`
    are the command's own, by key (`{"server.port": 8080}`); None values count as not given.
    """
    known = keys()
    given: dict[str, _Given] = {}
    path = path or environ.get("CONFIG_PATH") or None
    if path is not None:
        given.update(_read_file(Path(path), known))
    given.update(_read_environment(environ, known))
    for name, value in (options or {}).items():
        if value is not None:
            given[name] = _Given(value, f"option --{name.rpartition('.')[2].replace('_', '-')}")
    return _build(given, known)


def _build(given: Mapping[str, _Given], known: Mapping[str, Key]) -> Config:
    plain: dict[str, Any] = {}
    for name, held in given.items():
        key = known[name]
        target = plain
        for part in key.path[:-1]:
            target = target.setdefault(part, {})
        try:
            target[key.path[-1]] = _value(key, held.value)
        except ValueError as error:
            raise ConfigError(
                f"{held.origin}: {name}: {_shown(name, held.value)} is refused: {error}"
            ) from None
    config = msgspec.convert(plain, Config)
    _check_relations(config, given, known)
    _check_servers(config, given, known)
    return config


def _value(key: Key, value: Any) -> Any:
    """The value in the field's type; ValueError with the remedy when it does not fit."""
    field = key.path[-1]
    if value is None:
        raise ValueError(
            f"the key has no value; write one (the default is {key.written(key.default)}) or remove the key"
        )
    if key.name == "exchange.symbols":
        return _symbols(value)
    if key.name in LISTS:
        return _words(key.name, value)
    if isinstance(value, str):
        value = value if _SECRET.search(key.name) else value.strip()
        if field.endswith("_s"):
            value = parse_duration(value)
        elif field.endswith("_bytes"):
            value = parse_size(value)
        elif isinstance(key.default, bool):
            value = _boolean(value)
        elif field == "log_level":
            value = value.lower()
        elif field == "data_dir":
            value = os.path.expanduser(value)
    elif field.endswith("_s") and value != 0:
        raise ValueError(f"a duration needs a unit, like {value}s or {value}ms")
    try:
        value = msgspec.convert(value, key.type, strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        raise ValueError(_plain(error, key)) from None
    _check(key.name, value)
    return value


def _plain(error: msgspec.ValidationError, key: Key) -> str:
    """msgspec's sentence with the remedy of this key."""
    message = str(error).replace("`", "")
    if key.path[-1] == "log_level":
        return "use one of debug, info, warning, error"
    if key.name == "auth.mode":
        return "use one of open, required"
    if isinstance(key.default, bool):
        return "write true or false"
    return f"{message[0].lower()}{message[1:]} (the default is {key.written(key.default)})"


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError("write true or false")


def _symbols(value: Any) -> tuple[str, ...]:
    """Upper case, in the given order, each once. From a comma list or a YAML list; `*` means all."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError("write a list of symbols, like BTCUSDT,ETHUSDT, or * for all")
    names = tuple(dict.fromkeys(part.strip().upper() for part in parts if part.strip()))
    if not names:
        raise ValueError("name at least one symbol, like BTCUSDT, or * for all")
    if "*" in names:
        return ("*",)
    for name in names:
        if not _SYMBOL.fullmatch(name) or len(name.encode()) > SYMBOL_BYTES_MAX:
            raise ValueError(f"{name!r} is no symbol; write them as the exchange does, like BTCUSDT,ETHUSDT")
    return names


def _words(name: str, value: Any) -> tuple[str, ...]:
    """A comma list or a YAML list, each word checked and written in one way. Levels may be a mapping."""
    if name == "log_levels" and isinstance(value, Mapping):
        value = [f"{component}={level}" for component, level in value.items()]
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError("write a list of words with commas between them")
    check = _CHECKS[name]
    return tuple(dict.fromkeys(check(part.strip()) for part in parts if part.strip()))


def _log_level(text: str) -> str:
    return "=".join(parse_pair(text))


def _origin(text: str) -> str:
    """An origin as browsers send it: lower case, without the scheme's own port, no path."""
    if text == "*":
        return text
    form = "write scheme://host or scheme://host:port as a browser's Origin header has it, or * for any site"
    try:
        parts = urlsplit(text.lower())
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{text!r} is no origin; {form}") from None
    beside = parts.path.rstrip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if not parts.scheme or not host or beside:
        raise ValueError(f"{text!r} is no origin; {form}")
    shown = f"[{host}]" if ":" in host else host
    plain = port is None or port == {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{shown}" if plain else f"{parts.scheme}://{shown}:{port}"


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"{error}; write addresses or networks like 10.0.0.0/8, 127.0.0.1, ::1") from None


_CHECKS = {"server.origins": _origin, "server.proxies": _network, "log_levels": _log_level}


def _check(name: str, value: Any) -> None:
    """Rules of single keys that a type cannot say. ValueError with the remedy."""
    if name == "tape.hot_rows" and value & (value - 1):
        below = 1 << (value.bit_length() - 1)
        raise ValueError(f"it must be a power of two; the nearest are {below} and {below * 2}")
    if name == "exchange.ws_endpoint" or (name == "exchange.ws_endpoint_b" and value != "auto"):
        _check_endpoint(value, ("ws", "wss"), ExchangeConfig().ws_endpoint)
    if name == "exchange.rest_endpoint":
        _check_endpoint(value, ("http", "https"), ExchangeConfig().rest_endpoint)
    if name == "influx.url" and value:
        _check_endpoint(value, ("http", "https"), "http://localhost:8086")
    if name == "redis.addr" and value:
        split_address(value, 6379)
    if name == "nats.url":
        _check_nats(value)
    if isinstance(value, str) and not value and name not in OPTIONAL:
        raise ValueError("it is empty; give it a value or remove the key")


def _check_endpoint(text: str, schemes: tuple[str, str], example: str) -> None:
    form = f"write {schemes[1]}://HOST or {schemes[0]}://HOST:PORT, like {example}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"it is no address; {form}") from None
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        raise ValueError(f"it is no {schemes[0]} address; {form}")
    if parts.path.rstrip("/") or parts.query or parts.fragment:
        raise ValueError(f"it must end after the host and port, paths are added by tradeback; {form}")


def _check_nats(text: str) -> None:
    """One server, or several of a cluster with commas between them; empty: none."""
    form = "write nats://HOST:4222 or nats://USER:PASSWORD@HOST:4222, several with commas between them"
    for each in text.split(",") if text else ():
        try:
            parts = urlsplit(each.strip())
            port = parts.port
        except ValueError:
            raise ValueError(f"it is no address; {form}") from None
        if parts.scheme not in ("nats", "tls") or not parts.hostname or port == 0 or parts.path.rstrip("/"):
            raise ValueError(f"it is no NATS address; {form}")


def _check_relations(config: Config, given: Mapping[str, _Given], known: Mapping[str, Key]) -> None:
    """Rules between keys. Refused at the key that was given, the bigger one otherwise."""
    for big, small in (
        ("exchange.backoff_max", "exchange.backoff_first"),
        ("exchange.rollover_max", "exchange.rollover_min"),
        ("tape.retention_bytes", "tape.segment_bytes"),
        ("auth.session_max", "auth.session_idle"),
    ):
        big_value, small_value = (_held(config, known[name].path) for name in (big, small))
        if big_value < small_value:
            culprit = big if big in given else small
            raise ConfigError(
                f"{given[culprit].origin}: {big} ({big_value}) is below {small} ({small_value});"
                f" raise {variable_of(big)} or lower {variable_of(small)}"
            )


def _check_servers(config: Config, given: Mapping[str, _Given], known: Mapping[str, Key]) -> None:
    """A key of a server that is not there would be ignored silently: refused, unless it is the default."""
    for section, needed in SERVERS.items():
        if _held(config, tuple(needed.split("."))):
            continue
        for name, held in given.items():
            key = known[name]
            if key.path[0] == section and _held(config, key.path) != key.default:
                raise ConfigError(
                    f"{held.origin}: {name} means nothing without {needed}; "
                    f"set {variable_of(needed)} or remove {name}"
                )


def _held(config: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        config = getattr(config, part)
    return config


def _read_environment(environ: Mapping[str, str], known: Mapping[str, Key]) -> dict[str, _Given]:
    by_variable = {variable_of(name): name for name in known}
    given = {}
    for variable, text in environ.items():
        if not text.strip():
            continue
        name = by_variable.get(variable, "")
        origin = f"environment variable {variable}"
        if name in known:
            given[name] = _Given(text, origin)
        elif variable.startswith(WATCHED_PREFIXES):
            near = _nearest(variable, [variable_of(key) for key in known])
            raise ConfigError(
                f"{origin}: unknown; {near}or unset it (docs/configuration.md lists every variable)"
            )
    return given


def _read_file(path: Path, known: Mapping[str, Key]) -> dict[str, _Given]:
    import yaml

    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"configuration file {path}: {reason}; correct --config or CONFIG_PATH") from None
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        return dict(_walk(loader, root, path, known)) if root is not None else {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path} line {mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"{place}: this is no YAML: {problem}; correct the line") from None
    finally:
        loader.dispose()


def _walk(loader: Any, root: Any, path: Path, known: Mapping[str, Key]) -> Iterator[tuple[str, _Given]]:
    """Keys of the file with their lines, sections opened."""
    import yaml

    sections = {name.partition(".")[0] for name in known if "." in name}
    seen: set[str] = set()

    def pairs(node: Any, above: str) -> Iterator[tuple[str, Any, str]]:
        origin = f"{path} line {node.start_mark.line + 1}"
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{origin}: {above or 'the file'} must hold `key: value` lines")
        for key_node, value_node in node.value:
            name = f"{above}.{key_node.value}" if above else str(key_node.value)
            origin = f"{path} line {key_node.start_mark.line + 1}"
            if name in seen:
                raise ConfigError(f"{origin}: {name} stands twice; keep one of them")
            seen.add(name)
            yield name, value_node, origin

    for section, section_node, section_origin in pairs(root, ""):
        empty = isinstance(section_node, yaml.ScalarNode) and section_node.value in ("", "~", "null")
        if section not in sections:
            found = [(section, section_node, section_origin)]
        else:
            found = [] if empty else list(pairs(section_node, section))
        for name, node, origin in found:
            if name not in known:
                near = _nearest(name, list(known))
                raise ConfigError(
                    f"{origin}: unknown key {name}; {near}or remove it (configs/default.yaml lists every key)"
                )
            yield name, _Given(loader.construct_object(node, deep=True), origin)


def _nearest(name: str, candidates: list[str]) -> str:
    found = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    return f"did you mean {found[0]}? Correct it " if found else "correct it "


def _shown(name: str, value: Any) -> str:
    """The value as a message may show it: no secret, no credentials of an address."""
    if _SECRET.search(name):
        return "the value"
    return _USER_INFO.sub("//***@", repr(value))
