"""Image, compose file, Prometheus and Grafana: what can be checked where no container engine runs."""

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.flow.all_servers import metrics
from tests.flow.running import running_engine, running_market, until
from tests.servers.fixtures import need
from tests.servers.kinds import RedisServer
from tradeback import settings
from tradeback.client import connect
from tradeback.model.address import split_address
from tradeback.model.config import Config

CHECKOUT = Path(__file__).resolve().parent.parent
COMPOSE = CHECKOUT / "compose.yaml"
PROMETHEUS = CHECKOUT / "configs/prometheus"
GRAFANA = CHECKOUT / "configs/grafana"
PUBLISHED = {"engine": 8080, "grafana": 3000}
TRADEBACKS = ("engine", "migrate")
"""Services that run our image."""
SERVICES = {*TRADEBACKS, "influxdb", "redis", "nats", "mysql", "prometheus", "grafana"}
KEYS = {
    "build", "cap_drop", "command", "depends_on", "environment", "healthcheck", "image", "init", "logging",
    "ports", "restart", "security_opt", "stop_grace_period", "ulimits", "volumes",
}  # fmt: skip
"""What of the compose format this file uses; a misspelt key would be none of them."""
VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Z_]+):-([^${}]*)\})")
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+(-[\w]+)*")
WITHIN_S = 60.0


def rendered(variables: Mapping[str, str]) -> dict[str, Any]:
    """The compose file with its variables put in, as docker compose does it: empty counts as not set."""

    def put(text: Any) -> Any:
        if isinstance(text, dict):
            return {key: put(value) for key, value in text.items()}
        if isinstance(text, list):
            return [put(value) for value in text]
        if not isinstance(text, str):
            return text
        assert "$" not in VARIABLE.sub("", text), f"{text}: a variable that has no default"
        return VARIABLE.sub(lambda found: found[1] or variables.get(found[2]) or found[3], text)

    found = put(yaml.safe_load(COMPOSE.read_text("utf-8")))
    assert isinstance(found, dict)
    return found


def examples() -> dict[str, str]:
    """.env.example."""
    lines = (CHECKOUT / ".env.example").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def secrets() -> dict[str, str]:
    """An .env in which every password is another one."""
    return {name: f"s{name.replace('_', '')}" for name in examples() if name.endswith(("PASSWORD", "TOKEN"))}


@pytest.fixture(params=["as it is", "with passwords"])
def compose(request: pytest.FixtureRequest) -> dict[str, Any]:
    return rendered({} if request.param == "as it is" else examples() | secrets())


def dockerfile() -> list[tuple[str, str]]:
    """Instructions of the image in their order: word and rest, continued lines joined."""
    text = (CHECKOUT / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    whole = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in whole.splitlines() if line)]


def final_stage() -> dict[str, list[str]]:
    """The instructions of the image that is made, by word."""
    found: dict[str, list[str]] = {}
    for word, rest in dockerfile():
        if word == "FROM":
            found = {}
        found.setdefault(word, []).append(rest)
    return found


def image_variables() -> dict[str, str]:
    """ENV of the image."""
    words = (word for line in final_stage()["ENV"] for word in shlex.split(line))
    return dict(word.split("=", 1) for word in words)


def configuration(compose: Mapping[str, Any], service: str = "engine") -> Config:
    """The engine's, from the image's variables and the service's."""
    variables = image_variables() | compose["services"][service]["environment"]
    assert all(isinstance(value, str) for value in variables.values()), "YAML must not read them as numbers"
    return settings.load(None, variables)


def test_the_image() -> None:
    stage, lines = final_stage(), dockerfile()
    for word, rest in lines:
        assert word != "FROM" or PINNED.fullmatch(rest.split()[0]), rest
    assert stage["USER"] == ["tradeback"]
    assert stage["WORKDIR"] == ["/var/lib/tradeback"]
    variables = image_variables()
    assert stage["EXPOSE"] == [variables["SERVER_PORT"]]
    assert stage["VOLUME"] == [variables["DATA_DIR"]]
    config = settings.load(None, variables)
    assert (config.server.host, config.server.port) == ("0.0.0.0", 8080)
    (install,) = (rest for word, rest in lines if word == "RUN" and "constraints.txt" in rest)
    extras = re.search(r"'\.\[([a-z,]+)\]'", install)
    assert extras is not None, "the clients of the servers are missing in the image"
    assert set(extras[1].split(",")) == set(settings.SERVERS)
    # The cache belongs to the files that were compiled and to the CPU: both as when it runs.
    at = next(index for index, (_, rest) in enumerate(lines) if "tradeback.warm" in rest)
    before = [rest for word, rest in lines[:at] if word == "WORKDIR"]
    copied = [rest for word, rest in lines[:at] if word == "COPY"]
    assert before[-1] == "/opt/tradeback"
    assert any("./tradeback" in rest for rest in copied)
    (env,) = (dict(w.split("=", 1) for w in shlex.split(rest)) for w_, rest in lines[:at] if "NUMBA" in rest)
    assert env.items() <= variables.items()


def test_what_goes_into_the_image_is_there() -> None:
    rules = (CHECKOUT / ".dockerignore").read_text("utf-8").split()
    assert rules[0] == "*", "all but what is named: no .env, no tape"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    sources = {
        word.removeprefix("./")
        for name, rest in dockerfile()
        if name == "COPY" and "--from" not in rest
        for word in rest.split()[:-1]
    }
    assert sources == allowed
    assert all((CHECKOUT / source).exists() for source in sources)


def test_the_file_has_the_shape_of_compose(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == SERVICES
    mounted = set()
    for name, service in services.items():
        assert set(service) <= KEYS, f"{name}: {set(service) - KEYS}"
        assert service["restart"] in ("unless-stopped", "on-failure:5"), name
        assert service["security_opt"] == ["no-new-privileges:true"]
        if name in TRADEBACKS:
            assert service["image"].startswith("tradeback:")
            assert service["build"] == "."
        else:
            assert PINNED.fullmatch(service["image"]), f"{name}: {service['image']} is not one version"
        for volume in service.get("volumes", ()):
            source, target = volume.split(":")[:2]
            assert target.startswith("/")
            if source.startswith("./"):
                assert (CHECKOUT / source).is_dir(), volume
                assert volume.endswith(":ro")
            else:
                mounted.add(source)
        for other, how in service.get("depends_on", {}).items():
            assert other in services
            if how["condition"] == "service_healthy":
                assert "test" in services[other]["healthcheck"]
    assert mounted == set(compose["volumes"])


def test_only_engine_and_grafana_are_published_and_on_this_machine_only(compose: dict[str, Any]) -> None:
    published = {
        name: service["ports"] for name, service in compose["services"].items() if "ports" in service
    }
    assert published == {name: [f"127.0.0.1:{port}:{port}"] for name, port in PUBLISHED.items()}
    wide = rendered({"PUBLISH_ADDRESS": "0.0.0.0", "TRADEBACK_PORT": "80", "GRAFANA_PORT": "81"})["services"]
    assert wide["engine"]["ports"] == ["0.0.0.0:80:8080"]
    assert wide["grafana"]["ports"] == ["0.0.0.0:81:3000"]


def test_every_variable_is_in_the_example_and_every_password_can_be_set() -> None:
    text = COMPOSE.read_text("utf-8")
    used = {found[2] for found in VARIABLE.finditer(text) if found[2]}
    assert used == set(examples())
    assert all(not value for name, value in examples().items() if name in secrets())
    changed = json.dumps(rendered(secrets()))
    assert "tradeback-local" not in changed, "a password that nobody can change"
    assert all(secret in changed for secret in secrets().values())


def test_the_engine_finds_its_servers(compose: dict[str, Any]) -> None:
    services = compose["services"]
    known = {key.variable for key in settings.keys().values()}
    assert set(services["engine"]["environment"]) <= known
    assert services["engine"]["environment"] == services["migrate"]["environment"]
    config = configuration(compose)
    assert f"data:{config.data_dir}" in services["engine"]["volumes"]
    for section, key in settings.SERVERS.items():
        value = getattr(getattr(config, section), key.partition(".")[2])
        assert value, f"{section} is not used"
    redis, _ = split_address(config.redis.addr, 0)
    influx, bus = urlsplit(config.influx.url), urlsplit(config.nats.url)
    where = {
        redis: split_address(config.redis.addr, 0)[1],
        influx.hostname: influx.port,
        bus.hostname: bus.port,
        config.mysql.host: config.mysql.port,
    }
    assert where == {"redis": 6379, "influxdb": 8086, "nats": 4222, "mysql": 3306}
    assert f"--port={bus.port}" in services["nats"]["command"]


def test_servers_take_the_engines_credentials(compose: dict[str, Any]) -> None:
    services, config = compose["services"], configuration(compose)
    bus, made = urlsplit(config.nats.url), services["influxdb"]["environment"]
    assert {f"--user={bus.username}", f"--pass={bus.password}", "--jetstream"} <= set(
        services["nats"]["command"]
    )
    redis = services["redis"]["command"]
    assert redis[redis.index("--requirepass") + 1] == config.redis.password
    assert redis[redis.index("--maxmemory-policy") + 1] == "noeviction"
    assert services["redis"]["environment"]["REDISCLI_AUTH"] == config.redis.password
    mysql = services["mysql"]["environment"]
    assert [mysql[f"MYSQL_{word}"] for word in ("DATABASE", "USER", "PASSWORD")] == [
        config.mysql.database, config.mysql.user, config.mysql.password,
    ]  # fmt: skip
    init = "DOCKER_INFLUXDB_INIT_"
    assert made[f"{init}ADMIN_TOKEN"] == config.influx.token
    assert (made[f"{init}ORG"], made[f"{init}BUCKET"]) == (config.influx.org, config.influx.bucket)
    assert len(made[f"{init}PASSWORD"]) >= 8, "InfluxDB refuses shorter ones"
    assert config.influx.api == "v2"


def test_every_server_is_asked_how_it_is(compose: dict[str, Any]) -> None:
    ports = {
        "influxdb": 8086,
        "redis": 6379,
        "nats": 8222,
        "mysql": 3306,
        "prometheus": 9090,
        "grafana": 3000,
    }
    for name, port in ports.items():
        check = compose["services"][name]["healthcheck"]
        assert check["test"][0] in ("CMD", "CMD-SHELL")
        assert set(check) == {"test", "interval", "timeout", "start_period", "retries"}, name
        assert str(port) in " ".join(check["test"]), name
        assert "127.0.0.1" in " ".join(check["test"]), f"{name}: localhost may be ::1, where nobody listens"
    assert "healthcheck" not in compose["services"]["engine"], "the image's is lost"
    assert f"--http_port={ports['nats']}" in compose["services"]["nats"]["command"]
    assert compose["services"]["migrate"]["command"] == ["migrate", "up"]
    assert compose["services"]["migrate"]["healthcheck"] == {"disable": True}


def test_prometheus_scrapes_the_engine_and_grafana_asks_prometheus(compose: dict[str, Any]) -> None:
    services = compose["services"]
    held = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text("utf-8"))
    (job,) = held["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"engine:{configuration(compose).server.port}"]}]
    assert all((PROMETHEUS / name).is_file() for name in held["rule_files"])
    (folder, *_) = services["prometheus"]["volumes"][0].split(":ro")
    assert folder == "./configs/prometheus:/etc/prometheus"
    assert "--config.file=/etc/prometheus/prometheus.yaml" in services["prometheus"]["command"]
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/tradeback.yaml").read_text())[
        "providers"
    ]
    boards = provider["options"]["path"]
    assert f"./configs/grafana/boards:{boards}:ro" in services["grafana"]["volumes"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{boards}/tradeback.json"
    assert all(target["datasource"]["uid"] == source["uid"] for _, target in targets())
    jobs = {found for expression in expressions() for found in re.findall(r'job="(\w+)"', expression)}
    assert jobs == {job["job_name"]}


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "boards/tradeback.json").read_text("utf-8"))
    return found


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    """Title of the panel, and the query."""
    for panel in board()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    return [target["expr"] for _, target in targets()] + [rule["expr"] for rule in alerts()]


def test_the_board_is_laid_out() -> None:
    panels = board()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + line)
            for column in range(place["w"])
            for line in range(place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies on another panel"
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["type"] == "row" or panel["description"], panel["title"]


def test_the_alerts_say_what_is_wrong() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s")), rule


COVERED = {
    "the exchange is unreachable": {"NoLine", "NotReady", "ExchangeRestSilent"},
    "both lines are down": {"BothLinesDown"},
    "gaps stay open, or for good": {"GapOpen", "GapUnrepairable"},
    "the tape cannot be written": {"TapeRefused", "DiskNearlyFull", "TapeKeeperFails"},
    "a store is behind": {"StoreBehind", "StoreDown", "RecorderBehind"},
    "clients are aborted": {"FeedClientsAborted"},
    "processes restart": {"ProcessRestarted"},
    "clocks are apart": {"ClockApart"},
    "latency": {"FeedSlow", "ReceivedLate", "HttpSlow"},
    "symbols are refused": {"SymbolsRefused"},
}
"""What an operator must be told of."""


def test_what_can_go_wrong_has_an_alert_and_stands_in_the_docs() -> None:
    names = {rule["alert"] for rule in alerts()}
    for what, wanted in COVERED.items():
        assert wanted <= names, what
    text = (CHECKOUT / "docs/operations.md").read_text("utf-8").partition("### Alerts")[2].partition("\n#")[0]
    listed = [
        name for line in text.splitlines() if line.startswith("|") for name in re.findall(r"`(\w+)`", line)
    ]
    assert sorted(listed) == sorted(names)


Labels = dict[str, dict[str, set[str]]]
"""Metric -> label -> its values."""

FUNCTIONS = {
    "rate", "increase", "sum", "count", "histogram_quantile", "predict_linear", "by",
}  # fmt: skip
SELECTOR = re.compile(r"([a-zA-Z_]\w*)(\{[^}]*\})?(\[[^\]]+\])?")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')


def read_expression(expression: str, known: Labels) -> set[str]:
    """Check every word of a query; the labels that its answer has."""
    assert expression.count("(") == expression.count(")"), expression
    grouped = [set(re.split(r",\s*", found)) for found in re.findall(r"by \(([^)]*)\)", expression)]
    bare = re.sub(r"by \([^)]*\)", "by ()", expression)
    labels: set[str] = set()
    words = re.sub(r'"[^"]*"|\b\d\w*', lambda found: found[0] if found[0][0] == '"' else "0", bare)
    for name, matchers, span in SELECTOR.findall(words):
        if name in FUNCTIONS:
            continue
        assert name in known, f"{expression}: there is no metric {name}"
        held = known[name]
        for label, how, value in MATCHER.findall(matchers):
            assert label in held, f"{expression}: {name} has no label {label}"
            assert how != "=" or value in held[label], f"{expression}: no {label} is ever {value}"
        counts = name.endswith(("_total", "_bucket"))
        inside = re.search(rf"(\w+)\({name}\b", expression)
        rated = inside is not None and inside[1] in ("rate", "increase")
        assert rated == counts, f"{expression}: rate and increase are of counters, and counters of them"
        assert span or not rated, f"{expression}: {name} over which time?"
        for group in grouped:
            assert group <= set(held), f"{expression}: {name} has no {group - set(held)}"
        labels |= set(held)
    if grouped:
        return set.union(*grouped) - {"le"}
    return set() if re.match(r"(sum|count|histogram_quantile)\b", expression) else labels


@pytest.mark.parametrize(
    "wrong",
    [
        "tradeback_absent",
        "sum by (line) (rate(tradeback_x_total[1m]))",
        'rate(tradeback_x_total{stream="other"}[1m])',
        'rate(tradeback_x_total{kind="trade"}[1m])',
        "sum(tradeback_x_total)",
        "rate(tradeback_x_total)",
        "rate(tradeback_level[1m])",
        "summ(tradeback_level)",
        "sum(tradeback_level",
    ],
)
def test_wrong_queries_are_found(wrong: str) -> None:
    known: Labels = {"tradeback_x_total": {"stream": {"trade"}}, "tradeback_level": {}}
    assert read_expression('sum by (stream) (rate(tradeback_x_total{stream="trade"}[1m]))', known) == {
        "stream"
    }
    with pytest.raises(AssertionError):
        read_expression(wrong, known)


def labels_of(text: str) -> Labels:
    """Every metric of /metrics, with the labels that any of its samples has."""
    known: Labels = {"up": {"job": {"tradeback"}, "instance": set()}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            held = known.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                held.setdefault(label, set()).add(value)
    return known


async def test_queries_name_what_an_engine_tells_and_the_health_check_finds_it(tmp_path: Path) -> None:
    need(RedisServer)
    with RedisServer(tmp_path / "redis") as redis:
        variables = {"REDIS_ADDR": redis.address, "FEED_WORKERS": "1"}
        async with (
            running_market(tmp_path, 2, 500.0) as market,
            running_engine(tmp_path / "data", market.announced, **variables) as engine,
        ):
            async with connect(engine.url, version=2) as feed:
                async for _ in feed:
                    break
                known: Labels = {}

                async def told() -> bool:
                    known.update(labels_of(await metrics(engine)))
                    return "tradeback_sink_up" in known and "tradeback_process_resident_bytes" in known

                await until(told, "what the recorder and the workers tell", WITHIN_S)
            await asyncio.to_thread(check_health, engine.url)
    for title, target in targets():
        labels = read_expression(target["expr"], known)
        legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert legend <= labels, f"{title}: {legend - labels}"
        assert target["legendFormat"]
    for rule in alerts():
        labels = read_expression(rule["expr"], known)
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert named <= labels, f"{rule['alert']}: {named - labels}"


def check_health(url: str) -> None:
    """The image's health check against a live engine, and against nobody."""
    _, _, words = final_stage()["HEALTHCHECK"][0].partition("CMD ")
    program, *arguments = json.loads(words)
    assert program == "python"
    for port, answer in ((urlsplit(url).port, 0), (1, 1)):
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "SERVER_PORT": str(port)}, capture_output=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == answer, done.stderr
