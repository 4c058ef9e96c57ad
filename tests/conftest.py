"""Fixtures and helpers that all tests share: a real server, started once, and its clients."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from itertools import chain, groupby
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from hypothesis import HealthCheck, settings

from romul_actors.local.processes import free_port
from romul_actors.local.redis_server import embedded_server, find_server
from romul_actors.store.acl import ROLES, user
from romul_actors.store.memory import MemoryStore
from romul_actors.store.redis import RedisStore
from romul_actors.store.roles import ActorStore, ReaderStore, WorkerStore
from tests import warm

# How fast a busy machine draws examples says nothing about the product. On CI the examples are the
# same each time; elsewhere new ones are sought.
settings.register_profile(
    "romul",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("romul")


def pytest_configure():
    """Make sure that processes of tests can be interrupted.

    Background processes of a shell ignore SIGINT, and their children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Run the longest tests first, so that no xdist worker ends with one of them.

    Each xdist worker gets an equal part of the tests, in order. A worker that has finished takes
    over the last tests of others. So each part begins with long tests, then has modules that start
    processes, and ends with short tests, which are easy to take over.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1:
        return
    seconds = {item: mark.args[0] for item in items if (mark := item.get_closest_marker("long"))}
    heads = [sorted(seconds, key=seconds.get, reverse=True)[n::workers] for n in range(workers)]
    rest = [item for item in items if item not in seconds]
    modules = [list(found) for _, found in groupby(rest, lambda item: item.path)]
    short = [found for found in modules if found[0].path.parent.name in ("contract", "unit")]
    for n, module in enumerate(module for module in modules if module not in short):
        heads[n % workers] += module
    tail = deque(chain.from_iterable(short))
    ordered: list[Any] = []
    for n, head in enumerate(heads):
        size = (len(items) - len(ordered)) // (workers - n)
        filled = [tail.popleft() for _ in range(min(max(0, size - len(head)), len(tail)))]
        ordered += head + filled
    items[:] = [*ordered, *tail]


def wait_for(condition, seconds=60.0):
    """Wait until `condition()` is true, and return its value.

    The slower the condition is, the less often it is called, because the processes that the test
    waits for need the processor, too.
    """
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        if found := condition():
            return found
        time.sleep(min(max(0.02, 4 * (time.monotonic() - began)), 0.3))
    raise AssertionError(f"not within {seconds} s: {condition}")


def romul(*arguments, **environment):
    """Run a command and wait for its end."""
    return warm.call(arguments, {**os.environ, **environment})


def romul_anew(*arguments, **environment):
    """The same in a new interpreter, for settings that Python reads when it starts."""
    return subprocess.run(
        [*warm.COLD, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def quiet():
    """Disable logging: the actor would warn about the simulated faults."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def listens(port):
    """Whether a process accepts connections on a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Background:
    """An event loop in its own thread, for servers that run during a test."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.stacks = []

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def enter(self, context):
        """Enter an asynchronous context; return its value and a function that leaves it."""
        stack = contextlib.AsyncExitStack()
        self.stacks.append(stack)
        return self.call(stack.enter_async_context(context)), lambda: self.call(stack.aclose())

    def close(self):
        for stack in self.stacks:
            self.call(stack.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()


@pytest.fixture(scope="session")
def background():
    made = Background()
    yield made
    made.close()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory, background):
    """URL of a real server, for the whole session."""
    folder = tmp_path_factory.mktemp("server")
    return background.enter(embedded_server(folder, durable=False))[0]


@pytest.fixture(scope="session")
def cluster_url(tmp_path_factory):
    """URL of a Cluster of three real nodes."""
    folder = tmp_path_factory.mktemp("cluster")
    nodes, clients = [], []
    buses: list[int] = []
    try:
        for n in range(3):
            port, bus = free_port(), free_port()
            settings = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
            settings += ["--cluster-enabled", "yes", "--cluster-config-file", f"{n}.conf"]
            # By default 10000 above the other one, which may be more than there are.
            settings += ["--cluster-port", str(bus), "--requirepass", "secret", "--save", ""]
            with (folder / f"{n}.log").open("wb") as log:
                nodes.append(subprocess.Popen([find_server(), *settings], stdout=log, stderr=log))
            clients.append(redis.Redis(port=port, password="secret", protocol=2))
            wait_for(lambda: answers(clients[-1]))
            first = (n * 16384 + 2) // 3
            last = ((n + 1) * 16384 + 2) // 3 - 1
            clients[-1].execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            if n:
                port = clients[0].connection_pool.connection_kwargs["port"]
                clients[-1].execute_command("CLUSTER", "MEET", "127.0.0.1", port, buses[0])
            buses.append(bus)
        for client in clients:
            wait_for(lambda node=client: node.cluster("info")["cluster_state"] == "ok")
        ports = [client.connection_pool.connection_kwargs["port"] for client in clients]
        yield "redis+cluster://:secret@" + ",".join(f"127.0.0.1:{port}" for port in ports)
    finally:
        for client in clients:
            client.close()
        for node in nodes:
            node.kill()
            node.wait()


def answers(client):
    with contextlib.suppress(redis.ConnectionError):
        return client.ping()
    return False


class ByRole:
    """A store that makes each call as the user of the role that the call belongs to."""

    def __init__(self, url):
        root = redis.Redis.from_url(url, protocol=2)
        root.flushall()
        self._stores = {}
        for role in ROLES:
            root.execute_command("ACL", "SETUSER", *user(role, role, "secret").split()[1:])
            at = urlsplit(url)
            place = at._replace(netloc=f"{role}:secret@{at.hostname}:{at.port}").geturl()
            self._stores[role] = RedisStore(place)
        root.close()

    def __getattr__(self, call):
        roles = {"worker": WorkerStore, "reader": ReaderStore, "actor": ActorStore}
        role = next((role for role, kind in roles.items() if hasattr(kind, call)), "operator")
        return getattr(self._stores[role], call)

    async def dead_letter(self, name, queue, unusable):
        store = self._stores["actor" if queue == "inbox" else "worker"]
        return await store.dead_letter(name, queue, unusable)

    async def close(self):
        for each in self._stores.values():
            await each.close()


@pytest.fixture(params=["memory", "redis", "by role", "cluster"])
async def store(request):
    """Each kind of store in turn, empty."""
    if request.param == "memory":
        yield MemoryStore()
        return
    if request.param == "by role":
        guarded = ByRole(request.getfixturevalue("redis_url"))
        yield guarded
        await guarded.close()
        return
    name = "redis_url" if request.param == "redis" else "cluster_url"
    made = RedisStore(request.getfixturevalue(name))
    # For a Cluster: all of its primaries.
    await made.connection.client.flushall()
    yield made
    await made.close()
