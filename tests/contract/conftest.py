"""What several tests of the contract stand on."""

import pytest
import redis


@pytest.fixture
def raw(redis_url):
    """A client past the store, which sees and changes the keys themselves; none is left over."""
    client = redis.Redis.from_url(redis_url, decode_responses=True, protocol=2)
    client.flushall()
    yield client
    client.flushall()
    client.close()
