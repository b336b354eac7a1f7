"""A soak of some seconds against the real engine: everything is sampled, nothing is lost."""

from benchmarks.soak.clients import Cast
from benchmarks.soak.judge import ZERO, judge
from benchmarks.soak.page import About, page
from benchmarks.soak.run import Options, Soak


def test_some_seconds_of_soak() -> None:
    seen: list[float] = []
    options = Options(minutes=0.1, rate=1_000.0, symbols=5, scrape_s=2.0)
    soaked = Soak(options, lambda passed_s, samples: seen.append(passed_s)).run()
    samples = soaked.samples
    assert soaked.notes == []
    assert len(seen) == len(samples.times) >= 3
    for name in (
        "rss:engine", "rss:recorder", "rss:supervisor", "pss", "fds:engine", "threads:recorder", "cpu:engine",
        "tasks:engine", "tasks:recorder", "publish:p99", "client:p99:v2 all",
    ):  # fmt: skip
        assert samples.last(name) > 0, name
    assert samples.last("trades") > 0
    assert samples.last("v1_compared") > 0
    assert {name: samples.last(name) for name in (*ZERO, "holes")} == dict.fromkeys((*ZERO, "holes"), 0.0)
    text = page(About("", "", {}, options.load), samples, judge(samples, soaked.notes))
    assert "v2 dropping" in text


def test_clients_differ_in_what_they_are_for() -> None:
    from benchmarks.soak.clients import Clients

    clients = Clients(Cast("http://127.0.0.1:1", "BTCUSDT", copies=3))
    names = [client.name for client in clients.everyone]
    assert names == ["v2 all", "v2 all 2", "v2 all 3", "v2 one symbol", "v2 dropping", "v1 all"]
    assert clients.sample(True)["windows"].keys() == set(names) - {"v1 all"}
