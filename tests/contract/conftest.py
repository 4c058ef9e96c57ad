"""Fixtures of several contract tests."""

import pytest
import redis


@pytest.fixture
def raw(redis_url):
    """A client that reads and changes keys without the store; all keys are removed at the end."""
    client = redis.Redis.from_url(redis_url, decode_responses=True, protocol=2)
    client.flushall()
    yield client
    client.flushall()
    client.close()
