"""Scripts from files and from seeds, and the simulator's exit when one is wrong."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tradeback.cli.sim import sim
from tradeback.sim.fault_script import load_faults
from tradeback.sim.faults import FaultError

NAMES = ["BTCUSDT", "ETHUSDT"]
SCRIPT = """
seed: 7
faults:
  - {kind: cut, at: 10s, how: reset, connections: one}
  - kind: lose
    at: 5s
    for: 2s
    stream: btcusdt@trade
    chance: 0.5
"""


def test_a_script_in_yaml_and_the_same_in_json(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SCRIPT)
    play = load_faults(str(tmp_path / "a.yaml"), NAMES)
    assert (play.seed, [fault.kind for fault in play.faults]) == (7, ["cut", "lose"])
    assert play.faults[1].end_s == 7.0
    (tmp_path / "b.json").write_text(json.dumps([{"kind": "cut", "at": "10s", "connections": "one"}]))
    assert load_faults(str(tmp_path / "b.json"), NAMES).faults == play.faults[:1]


def test_a_seed_makes_a_script() -> None:
    assert load_faults("seed:7:2m", NAMES).faults == load_faults("seed:7:2m", NAMES).faults
    assert load_faults("seed:7:2m", NAMES).faults != load_faults("seed:8:2m", NAMES).faults
    assert max(fault.at_s for fault in load_faults("seed:7", NAMES).faults) < 600


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("faults: 7", "must hold `faults:` with a list"),
        ("[1]", "fault 1 must be a table of keys"),
        ("{faults: [], sed: 1}", "no key 'sed' at its top"),
        ("{faults: [], seed: x}", "seed must be a whole number"),
        ("[{kind: cut, at: 1}]", "fault 1: at: 1 needs a unit"),
        ("a: [", "neither YAML nor JSON"),
        ("", "must hold"),
    ],
)
def test_wrong_files_end_with_2_and_say_why(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "storm.yaml"
    path.write_text(text)
    ended = CliRunner().invoke(sim, ["--port", "0", "--faults", str(path)])
    assert ended.exit_code == 2, ended.output
    assert words in ended.output
    assert "storm.yaml" in ended.output


@pytest.mark.parametrize("named", ["seed:", "seed:x", "seed:7:long", "nowhere.yaml"])
def test_wrong_names(named: str) -> None:
    with pytest.raises(FaultError, match=named):
        load_faults(named, NAMES)


def test_a_folder_is_no_script(tmp_path: Path) -> None:
    with pytest.raises(FaultError, match="cannot be read"):
        load_faults(str(tmp_path), NAMES)
