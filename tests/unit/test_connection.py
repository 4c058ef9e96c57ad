"""The server that a command means, and what is said where none answers."""

import pytest

from romul_actors.cli import connection
from romul_actors.errors import StoreUnavailableError
from romul_actors.local.redis_server import URL_FILE
from romul_actors.local.run_file import RunFile
from romul_actors.store.redis import urls

NOWHERE = "redis://127.0.0.1:1/0"


async def refusal(url=NOWHERE):
    with pytest.raises(StoreUnavailableError, match="no Redis or Valkey server answers") as refused:
        async with connection.connected(url):
            pass
    return str(refused.value)


async def test_where_no_server_was_named_a_local_run_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connection, "DEFAULT_URL", NOWHERE)
    # Nothing will listen there, however long a client waits.
    monkeypatch.setattr(urls, "RETRY_CAP_S", 0.01)
    assert "local run" not in await refusal()
    RunFile(["mine"], 1, [], []).write(tmp_path / "runs" / "mine")
    assert "`romul serve runs/mine` starts it again; then --redis runs/mine" in await refusal()
    (tmp_path / "runs" / "mine" / URL_FILE).write_text(NOWHERE)
    assert (await refusal()).endswith("A local run has a server of its own: --redis runs/mine")
    # A server that was named is the one that is meant.
    assert "local run" not in await refusal("redis://127.0.0.1:2/0")
