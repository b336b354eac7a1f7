"""`tradeback edge`: what it refuses. What it does is tested in tests/edge and tests/flow/test_edge.py."""

import pytest
from click.testing import CliRunner

from tests.cli.running import refused, tradeback
from tradeback.cli.edge import edge


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "an edge needs NATS: set NATS_URL"),
        ({"NATS_URL": "nats://h:4222", "NATS_JETSTREAM": "false"}, "unset NATS_JETSTREAM"),
        ({"NATS_URL": "nats://h:4222", "FEED_WORKERS": "2"}, "unset FEED_WORKERS"),
        ({"NATS_URL": "http://h:4222"}, "it is no NATS address"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(variables: dict[str, str], words: str) -> None:
    assert words in refused(tradeback("edge", variables=variables))


def test_the_help_has_examples() -> None:
    shown = CliRunner().invoke(edge, ["--help"]).output
    assert "tradeback edge --nats" in shown
    assert "--hub" in shown
