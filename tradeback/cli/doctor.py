"""`tradeback doctor`: is everything there that the engine needs?"""

import asyncio
import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import click

from tradeback.cli.options import config_option

if TYPE_CHECKING:
    from tradeback.model.config import Config

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, and what to do when it is not ok."""

    check: str
    state: State
    found: str
    remedy: str = ""


@click.command(short_help="Check configuration, machine, exchange and servers.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="A JSON list instead of a table.")
def doctor(config_path: str | None, as_json: bool) -> int:
    """Check everything that the engine needs, with a remedy for each fault. Changes nothing.

    The machine (open files, disk, memory, processors, port, kernel cache), the tape, the registry and who may
    log in, the exchange (REST, symbols, both lines, clock), and each server that is configured: InfluxDB,
    Redis, NATS, MySQL.

    Exit code 0 when everything works (warnings count as working), 1 when something fails.

    \b
    Examples:
      tradeback doctor
      tradeback doctor --config configs/mine.yaml
      tradeback doctor --json | jq '.[] | select(.state != "ok")'
    """
    from tradeback import settings
    from tradeback.cli.doctor_machine import check_versions
    from tradeback.model.errors import ConfigError

    findings = [check_versions()]
    try:
        config = settings.load(config_path, os.environ)
    except ConfigError as error:
        findings.append(Finding("configuration", "fail", str(error), "correct it, then ask again"))
    else:
        where = config_path or os.environ.get("CONFIG_PATH") or "defaults and environment"
        findings.append(Finding("configuration", "ok", where))
        findings += asyncio.run(check_all(config))
    if as_json:
        import json

        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _print(findings)
    return 1 if any(finding.state == "fail" for finding in findings) else 0


async def check_all(config: "Config") -> list[Finding]:
    """The machine, then everything that is asked over the network, at once."""
    from tradeback.cli.doctor_exchange import check_exchange
    from tradeback.cli.doctor_influx import check_influx
    from tradeback.cli.doctor_machine import check_machine
    from tradeback.cli.doctor_nats import check_nats
    from tradeback.cli.doctor_redis import check_redis
    from tradeback.cli.doctor_registry import check_registry
    from tradeback.cli.doctor_tape import check_tape

    machine = [*check_machine(config), check_tape(config)]
    registry, exchange, influx, redis, nats = await asyncio.gather(
        check_registry(config),
        check_exchange(config),
        check_influx(config),
        check_redis(config),
        check_nats(config),
    )
    servers = (found for found in (influx, redis, nats) if found is not None)
    return [*machine, *registry, *exchange, *servers]


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    drawn = Table(show_lines=False)
    for title in ("check", "", "found", "remedy"):
        drawn.add_column(title, overflow="fold")
    for finding in findings:
        state = Text(finding.state, style=colours[finding.state])
        drawn.add_row(finding.check, state, Text(finding.found), Text(finding.remedy))
    Console(width=None if sys.stdout.isatty() else 160).print(drawn)
