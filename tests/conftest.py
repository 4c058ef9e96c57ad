"""What all tests share: a real server, started once, and what they talk to it with."""

import asyncio
import contextlib
import os
import threading

import pytest
from hypothesis import HealthCheck, settings

from romul_actors.server import embedded_server
from romul_actors.store.memory import MemoryStore
from romul_actors.store.redis import RedisStore

# How fast a busy machine draws examples says nothing about the product. On CI the examples are the
# same each time; elsewhere new ones are sought.
settings.register_profile(
    "romul",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("romul")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    """URL of a real server, for the whole session; its loop lives in a thread of its own."""
    folder = tmp_path_factory.mktemp("server")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    stack = contextlib.AsyncExitStack()

    def call(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

    yield call(stack.enter_async_context(embedded_server(folder, durable=False)))
    call(stack.aclose())
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


@pytest.fixture(params=["memory", "redis"])
async def store(request):
    """Each kind of store in turn, empty."""
    if request.param == "memory":
        yield MemoryStore()
        return
    redis = RedisStore(request.getfixturevalue("redis_url"))
    for name in await redis.experiments():
        await redis.remove(name)
    yield redis
    await redis.close()
