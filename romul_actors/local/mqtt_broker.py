"""The embedded broker: a real MQTT broker for one run on one machine.

The program is mosquitto if it is on the PATH, else amqtt. The broker listens on loopback, requires
a password that only this user can read, and ends with the process that started it.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from romul_actors.errors import RomulError
from romul_actors.local.processes import end, free_port, start_service
from romul_actors.mqtt.acl import password_line

URL_FILE = "mqtt.url"
USER = "romul"
START_S = 10.0
END_S = 5.0


def has_broker() -> bool:
    """Whether a broker program is installed on this machine."""
    return bool(shutil.which("mosquitto")) or importlib.util.find_spec("amqtt") is not None


@contextlib.asynccontextmanager
async def embedded_broker(
    folder: Path, port: int | None = None, password: str | None = None, kind: str | None = None
) -> AsyncIterator[str]:
    """Run a broker with its files in `folder`, and yield its URL, which is also stored in a file.

    Args:
        folder: created if it does not exist.
        port: default: a free one.
        password: default: a random one.
        kind: "mosquitto" or "amqtt"; default: the one that is installed.

    Raises:
        RomulError: no broker program is installed, or it does not start.
    """
    home = folder.resolve() / "broker"  # noqa: ASYNC240  (nothing else runs yet)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    port, password = port or free_port(), password or secrets.token_urlsafe(24)
    kind = kind or ("mosquitto" if shutil.which("mosquitto") else "amqtt")
    command = (_mosquitto if kind == "mosquitto" else _amqtt)(home, port, password)
    with (home / "broker.log").open("ab") as output:
        process = await start_service(command, output)
    (home / "broker.pid").write_text(str(process.pid))
    url_file = folder / URL_FILE
    try:
        await _answers(port, process, home)
        # amqtt does not answer a client of MQTT 5, which would then wait.
        older = "?protocol=3.1.1" if kind == "amqtt" else ""
        url = f"mqtt://{USER}:{password}@127.0.0.1:{port}{older}"
        url_file.touch(mode=0o600)
        url_file.write_text(url)
        yield url
    finally:
        url_file.unlink(missing_ok=True)
        await end(process, END_S)


def _mosquitto(home: Path, port: int, password: str) -> list[str]:
    program = shutil.which("mosquitto")
    if program is None:
        raise RomulError("no mosquitto on the PATH")
    users = home / "users"
    users.unlink(missing_ok=True)
    users.touch(mode=0o600)
    # Not with mosquitto_passwd: the password would be in a command line, which all users see.
    users.write_text(password_line(USER, password) + "\n")
    settings = [f"listener {port} 127.0.0.1", "allow_anonymous false", f"password_file {users}"]
    if os.getuid() == 0:
        # Otherwise it would switch to a user that may not read the passwords.
        settings.append("user root")
    (home / "broker.conf").write_text("\n".join([*settings, "persistence false", ""]))
    return [program, "-c", str(home / "broker.conf")]


def _amqtt(home: Path, port: int, password: str) -> list[str]:
    try:
        from pwdlib import PasswordHash  # noqa: PLC0415
        from pwdlib.hashers.argon2 import Argon2Hasher  # noqa: PLC0415
    except ImportError:
        raise RomulError(
            "no mosquitto on the PATH, and the embedded broker is not installed: "
            "pip install 'romul[embedded]', or run without a broker (--no-broker)"
        ) from None
    users = home / "users"
    users.touch(mode=0o600)
    # amqtt checks a password in the loop that serves all clients. With Argon2's usual cost, a few
    # clients that connect at once would get no answer. A random password cannot be guessed anyway.
    cheap = Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1)
    users.write_text(f"{USER}:{PasswordHash((cheap,)).hash(password)}\n")
    settings = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {
            "amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(users)},
        },
    }
    # JSON is YAML too.
    (home / "broker.yaml").write_text(json.dumps(settings, indent=1))
    module = ["-P", "-m", "amqtt.scripts.broker_script"]
    return [sys.executable, *module, "-c", str(home / "broker.yaml")]


async def _answers(port: int, process: asyncio.subprocess.Process, home: Path) -> None:
    """Wait until the broker accepts connections."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_S):
            while process.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    await writer.wait_closed()
                    return
    raise RomulError(f"the broker does not start; see its log, {home / 'broker.log'}")
