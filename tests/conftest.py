"""What several rooms' tests need: the recordings, the servers, and no variables of the caller."""

import os
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from tests.servers.fixtures import (
    _servers_heal,
    influx_server,
    mariadb_server,
    nats_server,
    redis_server,
)
from tradeback import settings

__all__ = ["_servers_heal", "influx_server", "mariadb_server", "nats_server", "redis_server"]

hypothesis_settings.register_profile("any_machine", deadline=None)
hypothesis_settings.load_profile("any_machine")
"""How long an example takes says how busy the machine is."""

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _no_foreign_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of whoever started the tests must not configure what is tested."""
    known = {key.variable for key in settings.keys().values()}
    for variable in list(os.environ):
        if variable in known or variable == "CONFIG_PATH":
            monkeypatch.delenv(variable)


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder with recordings: TRADEBACK_SHARED, else `../shared`. Fails in CI without."""
    folder = Path(os.environ.get("TRADEBACK_SHARED") or CHECKOUT.parent / "shared")
    if (folder / "data").is_dir():
        return folder
    reason = f"no recordings in {folder}; TRADEBACK_SHARED names another folder"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
