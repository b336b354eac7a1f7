"""settings: file, environment and options give what was written directly, or one clear line."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tradeback import settings
from tradeback.model.config import Config
from tradeback.model.errors import ConfigError
from tradeback.ops.components import COMPONENTS, LEVELS

DEFAULT_FILE = Path(__file__).parent.parent / "configs" / "default.yaml"
KEYS = settings.keys()
RELATIONS = (
    ("exchange.backoff_max", "exchange.backoff_first"),
    ("exchange.rollover_max", "exchange.rollover_min"),
    ("tape.retention_bytes", "tape.segment_bytes"),
    ("auth.session_max", "auth.session_idle"),
)
"""Keys of which the first may not be below the second."""
FIXED_VARIABLES = (
    "SERVER_HOST SERVER_PORT SERVER_READ_TIMEOUT SERVER_WRITE_TIMEOUT"
    " MYSQL_HOST MYSQL_PORT MYSQL_DATABASE MYSQL_USER MYSQL_PASSWORD"
    " INFLUX_URL INFLUX_TOKEN INFLUX_ORG INFLUX_BUCKET INFLUX_API"
    " REDIS_ADDR REDIS_PASSWORD REDIS_DB NATS_URL"
    " EXCHANGE_WS_ENDPOINT EXCHANGE_REST_ENDPOINT EXCHANGE_MAX_CONNECTIONS EXCHANGE_SYMBOLS DATA_DIR"
    " FEATURE_ENIGMA_ENABLED FEATURE_AGGREGATION_ENABLED FEATURE_BINARY_WEBSOCKET LOG_LEVEL"
)
"""Names that the contract with users fixes, beside CONFIG_PATH."""

names = st.text(st.sampled_from("ABCDEFGHXYZ0123456789币安人生"), min_size=1, max_size=8)
origins = st.just("*") | st.builds("https://{}".format, st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True))
networks = st.ip_addresses().map(lambda address: f"{address}/{address.max_prefixlen}")
log_levels = st.builds("{}={}".format, st.sampled_from(sorted(COMPONENTS)), st.sampled_from(sorted(LEVELS)))
hosts = st.from_regex(r"[a-z][a-z0-9]{0,8}(:[1-9][0-9]{0,3})?", fullmatch=True)


def values(key: settings.Key) -> st.SearchStrategy[Any]:
    """Values that a key accepts."""
    if key.name == "exchange.symbols":
        return st.lists(names, min_size=1, max_size=5, unique=True).map(tuple) | st.just(("*",))
    if key.name == "influx.api":
        return st.sampled_from(("v1", "v2"))
    if key.name == "nats.url":
        return st.lists(hosts.map("nats://u:p@{}".format), min_size=1, max_size=3).map(",".join)
    if key.name == "nats.node":
        return st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True)
    if "_endpoint" in key.name or key.name == "influx.url":
        scheme = st.sampled_from(("ws", "wss") if "ws_" in key.name else ("http", "https"))
        return st.builds("{}://{}".format, scheme, hosts)
    if key.name == "tape.hot_rows":
        return st.integers(0, 24).map(lambda power: 1 << power)
    if key.name == "log_level":
        return st.sampled_from(("debug", "info", "warning", "error"))
    if key.name == "exchange.lines":
        return st.integers(1, 2)
    if key.name == "auth.mode":
        return st.sampled_from(("open", "required"))
    if key.name in settings.LISTS:
        words = {"server.origins": origins, "server.proxies": networks}.get(key.name, log_levels)
        return st.lists(words, min_size=1, max_size=3, unique=True).map(tuple)
    if key.name == "redis.addr":
        return st.sampled_from(("cache", "cache.example.com:6379", "127.0.0.1:1", "[::1]:65535", "[fe80::1]"))
    if key.name == "redis.db":
        return st.integers(0, 65_535)
    if key.name == "feed.workers":
        return st.integers(0, 64)
    if isinstance(key.default, bool):
        return st.booleans()
    if isinstance(key.default, float):
        return st.integers(1, 10**9).map(lambda us: us / 1_000_000)
    if isinstance(key.default, int):
        return st.integers(1, 65_535 if key.name.endswith(".port") else 2**40)
    return st.from_regex(r"[a-z0-9./-]{1,20}", fullmatch=True)


SOME_SERVER = {"mysql": "server", "influx": "http://server", "nats": "nats://server", "redis": "server"}


@st.composite
def overlays(draw: st.DrawFn) -> dict[str, Any]:
    """Some keys with acceptable values, that also fit each other."""
    chosen = draw(st.lists(st.sampled_from(sorted(KEYS)), unique=True))
    overlay = {name: draw(values(KEYS[name])) for name in chosen}
    for section, needed in settings.SERVERS.items():
        if any(name.startswith(f"{section}.") for name in overlay):
            overlay.setdefault(needed, SOME_SERVER[section])
    for big, small in RELATIONS:
        if big in overlay or small in overlay:
            pair = [overlay.get(name, KEYS[name].default) for name in (big, small)]
            overlay[big], overlay[small] = max(pair), min(pair)
    return overlay


RELATED = {name for pair in RELATIONS for name in pair}
RELATED |= {name for name in KEYS if name.partition(".")[0] in settings.SERVERS}
independent = overlays().map(lambda overlay: {name: overlay[name] for name in overlay.keys() - RELATED})
"""Overlays that fit on top of each other."""


def direct(overlay: dict[str, Any]) -> Config:
    """The configuration built field by field, without the code under test."""
    plain = msgspec.to_builtins(Config())
    for name, value in overlay.items():
        target = plain
        for part in KEYS[name].path[:-1]:
            target = target[part]
        target[KEYS[name].path[-1]] = list(value) if isinstance(value, tuple) else value
    return msgspec.convert(plain, Config)


def as_yaml(overlay: dict[str, Any]) -> str:
    """The overlay as a file: durations and sizes as written, the rest as YAML's own types."""
    tree: dict[str, Any] = {}
    for name, value in overlay.items():
        section, _, field = name.rpartition(".")
        key = KEYS[name]
        if isinstance(value, float):
            value = key.written(value)
        elif isinstance(value, tuple):
            value = list(value)
        (tree.setdefault(section, {}) if section else tree)[field] = value
    return yaml.safe_dump(tree, allow_unicode=True)


def as_environment(overlay: dict[str, Any]) -> dict[str, str]:
    return {KEYS[name].variable: KEYS[name].written(value) for name, value in overlay.items()}


@given(overlays())
def test_any_environment_equals_the_direct_configuration(overlay: dict[str, Any]) -> None:
    assert settings.load(None, as_environment(overlay)) == direct(overlay)


@given(overlays())
def test_any_file_equals_the_direct_configuration(
    tmp_path_factory: pytest.TempPathFactory, overlay: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("settings") / "given.yaml"
    path.write_text(as_yaml(overlay), "utf-8")
    assert settings.load(str(path), {}) == direct(overlay)


@given(independent, independent, independent)
def test_options_win_over_environment_and_that_over_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    in_file: dict[str, Any],
    in_environment: dict[str, Any],
    as_options: dict[str, Any],
) -> None:
    path = tmp_path_factory.mktemp("settings") / "given.yaml"
    path.write_text(as_yaml(in_file), "utf-8")
    environment = {"CONFIG_PATH": str(path), **as_environment(in_environment)}
    options = {name: KEYS[name].written(value) for name, value in as_options.items()}
    assert settings.load(None, environment, options) == direct(in_file | in_environment | as_options)


def test_every_variable_of_the_contract_is_known() -> None:
    known = {settings.variable_of(name) for name in KEYS}
    assert set(FIXED_VARIABLES.split()) <= known


def test_variables_are_unique() -> None:
    variables = [settings.variable_of(name) for name in KEYS]
    assert len(set(variables)) == len(variables)


def test_default_file_holds_every_key_and_loads_to_the_defaults() -> None:
    assert settings.load(str(DEFAULT_FILE), {}) == Config()
    tree = yaml.safe_load(DEFAULT_FILE.read_text("utf-8"))
    written = {
        f"{section}.{field}" if isinstance(fields, dict) else section
        for section, fields in tree.items()
        for field in (fields if isinstance(fields, dict) else [section])
    }
    assert written == set(KEYS)


def test_default_file_explains_every_key() -> None:
    lines = DEFAULT_FILE.read_text("utf-8").splitlines()
    bare = [line for above, line in pairwise(lines) if ":" in line and "#" not in line + above]
    assert bare == []


def test_configuration_page_lists_every_variable() -> None:
    page = (DEFAULT_FILE.parent.parent / "docs" / "configuration.md").read_text("utf-8")
    for key in KEYS.values():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{key.name}` |"))
        assert f"`{key.variable}`" in row
        assert key.name == "exchange.symbols" or f"`{key.written(key.default)}`" in row


REFUSED_VARIABLES = [
    ("FEED_LAG_MAX", "10", "feed.lag_max", "unit"),
    ("FEED_LAG_MAX", "0", "feed.lag_max", "> 0"),
    ("FEED_LAG_MAX", "-1s", "feed.lag_max", "15s"),
    ("FEED_LAG", "10s", "FEED_LAG_MAX", "did you mean"),
    ("TAPE_HOT_ROWS", "1000", "tape.hot_rows", "512 and 1024"),
    ("TAPE_SEGMENT_BYTES", "64MiBs", "tape.segment_bytes", "64MiB"),
    ("TAPE_RETENTION_BYTES", "1MiB", "tape.retention_bytes", "TAPE_SEGMENT_BYTES"),
    ("EXCHANGE_BACKOFF_FIRST", "1h", "exchange.backoff_first", "EXCHANGE_BACKOFF_MAX"),
    ("SERVER_PORT", "eighty", "server.port", "8080"),
    ("SERVER_PORT", "65536", "server.port", "65535"),
    ("SERVER_TIMEOUT", "1s", "SERVER_TIMEOUT", "unset"),
    ("EXCHANGE_SYMBOLS", "BTC USDT", "exchange.symbols", "BTCUSDT"),
    ("EXCHANGE_SYMBOLS", ",", "exchange.symbols", "at least one"),
    ("EXCHANGE_WS_ENDPOINT", "https://x", "exchange.ws_endpoint", "wss://"),
    ("EXCHANGE_WS_ENDPOINT", "wss://x/ws", "exchange.ws_endpoint", "after the host"),
    ("EXCHANGE_REST_ENDPOINT", "x:80", "exchange.rest_endpoint", "https://"),
    ("EXCHANGE_LINES", "3", "exchange.lines", "<= 2"),
    ("FEATURE_ENIGMA_ENABLED", "perhaps", "feature.enigma_enabled", "true or false"),
    ("LOG_LEVEL", "loud", "log_level", "debug, info, warning, error"),
    ("LOG_LEVELS", "line=loud", "log_levels", "debug, info, warning, error"),
    ("LOG_LEVELS", "lines=debug", "log_levels", "library, line,"),
    ("LOG_LEVELS", "line", "log_levels", "COMPONENT=LEVEL"),
    ("REDIS_ADDR", "redis://localhost", "redis.addr", "HOST:PORT"),
    ("REDIS_ADDR", "localhost:65536", "redis.addr", "65535"),
    ("REDIS_DB", "3", "redis.db", "REDIS_ADDR"),
    ("AUTH_MODE", "closed", "auth.mode", "open, required"),
    ("AUTH_MODUS", "required", "AUTH_MODE", "did you mean"),
    ("AUTH_SESSION_IDLE", "31d", "auth.session_idle", "AUTH_SESSION_MAX"),
    ("LIMIT_READ_PER_SECOND", "-1", "limit.read_per_second", "500"),
    ("SERVER_ORIGINS", "charts.example.com", "server.origins", "scheme://host"),
    ("SERVER_ORIGINS", "https://a.example/x", "server.origins", "scheme://host"),
    ("SERVER_ORIGINS", "https://a.example:x", "server.origins", "scheme://host"),
    ("SERVER_PROXIES", "10.0.0.1/8", "server.proxies", "10.0.0.0/8"),
    ("SERVER_PROXIES", "proxy", "server.proxies", "127.0.0.1"),
    ("CONFIG_PATH", "/does/not/exist.yaml", "/does/not/exist.yaml", "CONFIG_PATH"),
]


@pytest.mark.parametrize(("variable", "text", "key", "remedy"), REFUSED_VARIABLES)
def test_a_bad_variable_is_named_with_its_remedy(variable: str, text: str, key: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.load(None, {variable: text})
    message = str(caught.value)
    assert key in message
    assert remedy in message
    assert variable in message
    assert "\n" not in message


REFUSED_FILES = [
    ("feed:\n  lag_max: 10\n", "line 2", "feed.lag_max", "10s"),
    ("feed:\n  lag_maxx: 10s\n", "line 2", "feed.lag_maxx", "did you mean feed.lag_max?"),
    ("feed:\n  lag_max_s: 10\n", "line 2", "feed.lag_max_s", "did you mean feed.lag_max?"),
    ("spin: on\nspin: off\n", "line 2", "spin", "twice"),
    ("\n\nserver:\n  port: true\n", "line 4", "server.port", "expected int"),
    ("server:\n  port:\n", "line 2", "server.port", "8080"),
    ("server: 3\n", "line 1", "server", "key: value"),
    ("- server\n", "line 1", "the file", "key: value"),
    ("server: {\n", "line 2", "YAML", "correct the line"),
    ("log_level: [info]\n", "line 1", "log_level", "use one of"),
    ("exchange:\n  symbols: [1]\n", "line 2", "exchange.symbols", "list of symbols"),
    ("mysql:\n  password: hunter2\n", "line 2", "mysql.password", "MYSQL_HOST"),
    ("influx:\n  token: hunter2\n", "line 2", "influx.token", "INFLUX_URL"),
]


@pytest.mark.parametrize(("text", "line", "key", "remedy"), REFUSED_FILES)
def test_a_bad_file_is_named_with_line_and_remedy(
    tmp_path: Path, text: str, line: str, key: str, remedy: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        settings.load(str(path), {})
    message = str(caught.value)
    assert f"{path} {line}" in message
    assert key in message
    assert remedy in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MYSQL_PASSWORD", "hunter2"),
        ("REDIS_PASSWORD", "hunter2"),
        ("INFLUX_TOKEN", "hunter2"),
        ("EXCHANGE_API_SECRET", "hunter2"),
        ("EXCHANGE_WS_ENDPOINT", "http://me:hunter2@x"),
    ],
)
def test_no_secret_is_repeated(variable: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.load(None, {variable: text})
    assert "hunter2" not in str(caught.value)


def test_a_password_is_taken_as_it_is_and_never_shown() -> None:
    loaded = settings.load(None, {"MYSQL_HOST": " db ", "MYSQL_PASSWORD": " hunter2 "})
    assert (loaded.mysql.host, loaded.mysql.password) == ("db", " hunter2 ")
    assert "hunter2" not in f"{loaded} {loaded!r}"


def test_an_empty_variable_counts_as_not_set() -> None:
    assert settings.load(None, {"REDIS_ADDR": "", "FEED_LAG_MAX": " ", "CONFIG_PATH": ""}) == Config()


def test_symbols_are_upper_case_and_unique() -> None:
    loaded = settings.load(None, {"EXCHANGE_SYMBOLS": " btcusdt,ETHUSDT, BtcUsdt ,"})
    assert loaded.exchange.symbols == ("BTCUSDT", "ETHUSDT")


def test_a_variable_of_somebody_else_is_left_alone() -> None:
    assert settings.load(None, {"PATH": "/bin", "EXCHANGER": "1", "PORT": "x"}) == Config()


def test_an_empty_section_keeps_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("server:\nfeed: ~\nspin: yes\n")
    assert settings.load(str(path), {}) == Config(spin=True)
