"""`romul doctor`: checks of server, broker, experiments and checkpoint stores."""

import asyncio
from dataclasses import asdict

import typer

from romul_actors.cli.exits import EXPERIMENT_FAILED, STORE
from romul_actors.cli.options.shared import DEFAULT_URL, AsJson, MqttCa, MqttUrl, RedisUrl
from romul_actors.cli.output.printing import MARKS, echo, echo_json
from romul_actors.cli.servers.connection import broker, folder_of
from romul_actors.local.address import resolve
from romul_actors.mqtt.broker import KEEPALIVE_S
from romul_actors.observe.doctor import examine


def doctor(
    redis: RedisUrl = DEFAULT_URL,
    mqtt: MqttUrl = None,
    mqtt_ca: MqttCa = None,
    as_json: AsJson = False,
) -> None:
    """Check server, broker, experiments and checkpoint stores, and suggest a remedy for each fault.

    The exit code is 3 if the server cannot be used, and 1 if there is any other fault.
    """
    at = broker(mqtt, mqtt_ca, KEEPALIVE_S, folder_of(redis))
    findings = asyncio.run(examine(resolve(redis), at))
    if as_json:
        echo_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            echo(f"{MARKS[finding.level]} {finding.what}")
            if finding.remedy:
                echo(f"      {finding.remedy}")
    faults = [finding for finding in findings if finding.level == "fault"]
    if faults:
        of_server = any(fault.server for fault in faults)
        raise typer.Exit(STORE if of_server else EXPERIMENT_FAILED)
