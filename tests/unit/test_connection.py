"""Which server a command uses, and the error if none answers."""

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import SSLConnection

from romul_actors.cli.processes.services import serve_until_stopped
from romul_actors.cli.servers import connection
from romul_actors.errors import (
    BrokerError,
    StoreError,
    StoreUnavailableError,
    UnknownExperimentError,
)
from romul_actors.local.redis_server import DATA
from romul_actors.local.run_file import RunFile
from romul_actors.mqtt.broker import Broker
from romul_actors.secret_file import with_passwords
from romul_actors.store.redis import RedisStore, urls

NOWHERE = "redis://127.0.0.1:1/0"


async def test_a_name_is_looked_for_among_local_runs_and_no_other_run_is_named(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connection, "DEFAULT_URL", NOWHERE)
    # Nothing will listen there, however long a client waits.
    monkeypatch.setattr(urls, "RETRY_CAP_S", 0.01)
    RunFile(["mine"], 1, [], []).write(tmp_path / "runs" / "mine")
    with pytest.raises(UnknownExperimentError) as unknown:
        async with connection.connected_to("other", None, changes=True):
            pass
    assert str(unknown.value).startswith(
        "no local run 'other' in runs: there are mine; and no server was found"
    )
    # Without a search's name, as for workers, no search is offered.
    with pytest.raises(StoreUnavailableError, match="no Redis or Valkey server") as refused:
        async with connection.connected(NOWHERE):
            pass
    assert "mine" not in str(refused.value)


def test_a_run_is_named_by_its_name_or_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RunFile(["mine"], 1, [], []).write(tmp_path / "runs" / "mine")
    with pytest.raises(StoreError, match="runs/mine: the run has no server of its own"):
        connection.named_run("mine")
    (tmp_path / "runs" / "mine" / DATA).mkdir()
    assert connection.named_run("mine") == connection.named_run("runs/mine") == Path("runs/mine")
    for unknown in ("mien", "runs/mien"):
        with pytest.raises(UnknownExperimentError, match="runs/mien: no run there: did you mean"):
            connection.named_run(unknown)


async def test_only_what_is_begun_warns_of_a_server_that_may_lose_it(redis_url, capsys):
    async with connection.connected(redis_url):
        pass
    assert capsys.readouterr().err == ""
    async with connection.connected(redis_url, warns=True):
        pass
    said = capsys.readouterr().err
    assert said.startswith("warning: ")
    assert said.endswith(
        "unsaved data is lost; run CONFIG SET appendonly yes, and set it in the "
        "configuration file\n"
    )


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "url",
    [
        f"redis://u:{SECRET}@127.0.0.1:1/0",
        f"redis://u:{SECRET}@127.0.0.1:port/0",
        f"redis://u:{SECRET}/b@127.0.0.1:1/0",
        f"redis://u:a/{SECRET}@127.0.0.1:1/0",
        f"redis://:{SECRET}?b@127.0.0.1:1/0",
        f"redis://u:{SECRET}#b@127.0.0.1:1/0",
        f"redis://u:a@{SECRET}@127.0.0.1:1/0",
        f"redis://127.0.0.1:1/0?password={SECRET}",
        f"redis://127.0.0.1:1/0?password={SECRET}&passwd=x",
        f"redis://127.0.0.1:1/0?db=0&password={SECRET}&ssl_cert_reqs=no",
        f"unix:///tmp/none.sock?password={SECRET}",
        f"redis://127.0.0.1:1/0?password=a@{SECRET}",
        f"redis+sentinel://u:{SECRET}/b@127.0.0.1:1/s",
        f"redis+sentinel://127.0.0.1:1/s?sentinel_password={SECRET}",
        f"redis+sentinel://u:p@127.0.0.1:1/s?sentinel_password={SECRET}&sentinel_user=u",
        f"redis+sentinel://127.0.0.1:1/s?sentinel_password=se&{SECRET}",
        f"redis+sentinel://127.0.0.1:1/s?sentinel_pasword={SECRET}",
        f"redis+sentinel://127.0.0.1:1/s?sentinel_password=a#{SECRET}",
        f"redis+sentinel://127.0.0.1:1/s?sentinel_password=a@{SECRET}",
        f"redis+cluster://127.0.0.1:1?auth={SECRET}",
        f"redis+cluster://u:{SECRET}@:1",
        f"other://u:{SECRET}@127.0.0.1",
    ],
)
async def test_whatever_is_wrong_with_a_url_its_password_is_not_said(url, monkeypatch):
    monkeypatch.setattr(urls, "RETRY_CAP_S", 0.01)
    with pytest.raises(StoreError) as refused:
        await RedisStore(url).check()
    assert SECRET not in str(refused.value)
    assert "***" in str(refused.value)
    assert SECRET not in urls.hide_password(url)


@pytest.mark.parametrize(
    "url", ["redis+cluster://h:1?sentinel_password=p", "redis+sentinel://h:1/s?ssl_ca_certs=x"]
)
def test_an_option_that_a_url_does_not_take_is_refused(url):
    with pytest.raises(StoreError, match=r":// takes"):
        urls.connect(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+cluster://u:p@h:1/3", r"@h:1/3: a Cluster has only database 0: omit /3"),
        ("redis://h:1/O", "must be the number of a database, such as /0"),
        ("rediss://h:1/1/2", "must be the number of a database"),
        ("redis+sentinel://h:1/s/first", "must be the number of a database"),
    ],
)
def test_a_database_that_there_cannot_be_is_refused(url, said):
    with pytest.raises(StoreError, match=said):
        urls.connect(url)


def test_a_database_is_taken_from_a_url():
    single: Any = urls.connect("redis://h:1/7")
    assert single.connection_pool.connection_kwargs["db"] == 7
    for url in ("redis+cluster://h:1", "redis+cluster://h:1/", "redis+cluster://h:1/0"):
        urls.connect(url)


async def test_a_server_that_answers_with_a_refusal_is_not_said_to_be_silent(redis_url):
    store = RedisStore(f"{redis_url.rpartition('/')[0]}/99")
    with pytest.raises(StoreError, match="the server refuses: DB index is out of range") as refused:
        await store.check()
    await store.close()
    assert "the number of the database at the end of the URL" in str(refused.value)
    assert not isinstance(refused.value, StoreUnavailableError)


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"])
async def test_a_file_of_tls_that_is_not_there_is_an_error_at_once(option, tmp_path):
    file = tmp_path / "none.pem"
    with pytest.raises(StoreError, match=f"{option}: {file}: No such file") as refused:
        await serve_until_stopped(f"rediss://u:{SECRET}@127.0.0.1:1/0?{option}={file}", never)
    assert not isinstance(refused.value, StoreUnavailableError)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
def test_a_file_of_tls_that_holds_something_else_is_named(option, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("no certificate")
    with pytest.raises(StoreError, match=f"{option}={file}: "):
        urls.connect(f"rediss://127.0.0.1:1/0?{option}={file}")


async def never(store, stop):
    raise AssertionError("there is no server")


def test_tls_and_the_sentinels_own_login_go_to_the_sentinels():
    url = "rediss+sentinel://u:p@h,i:2/s/3?sentinel_username=v&sentinel_password=q%2F+"
    client: Any = urls.connect(url)
    pool = client.connection_pool
    first, second = (node.connection_pool for node in pool.sentinel_manager.sentinels)
    for given, login in ((pool, ("u", "p")), (first, ("v", "q/+")), (second, ("v", "q/+"))):
        options = given.connection_kwargs
        assert (options["username"], options["password"]) == login
        assert issubclass(given.connection_class, SSLConnection)
    assert (second.connection_kwargs["host"], second.connection_kwargs["port"]) == ("i", 2)
    # A login of the primary's is not sent to Sentinels that may want none.
    client = urls.connect("redis+sentinel://u:p@h/s")
    [node] = client.connection_pool.sentinel_manager.sentinels
    assert node.connection_pool.connection_kwargs["password"] is None


def test_passwords_in_files_stand_in_the_url_for_where_the_files_are_not(tmp_path, monkeypatch):
    for name, password in (("REDIS", "p@1"), ("SENTINEL", "q/2")):
        file = tmp_path / name
        file.write_text(password + "\n")
        monkeypatch.setenv(f"ROMUL_{name}_PASSWORD_FILE", str(file))
    assert with_passwords("redis://u@h") == "redis://u:p%401@h"
    assert with_passwords("redis://h") == "redis://h"
    sentinel = "redis+sentinel://u:p%401@h/s"
    assert with_passwords("redis+sentinel://u@h/s") == f"{sentinel}?sentinel_password=q%2F2"
    named = f"{sentinel}?sentinel_username=v"
    assert with_passwords(named) == f"{named}&sentinel_password=q%2F2"
    assert with_passwords(f"{sentinel}?sentinel_password=r") == f"{sentinel}?sentinel_password=r"
    given = "h/s?sentinel_password=a@b"
    assert with_passwords(f"redis+sentinel://u@{given}") == f"redis+sentinel://u:p%401@{given}"


@pytest.mark.parametrize(
    "url",
    [
        f"http://u:{SECRET}@h",
        f"mqtt://u:{SECRET}@h?x=1",
        f"mqtt://u:{SECRET}@:1",
        f"mqtt://u:{SECRET}@h:port",
        f"mqtt://u:{SECRET}/b@h",
        f"mqtt://[u:{SECRET}@h",
    ],
)
def test_whatever_is_wrong_with_a_brokers_url_its_password_is_not_said(url):
    with pytest.raises(BrokerError) as refused:
        Broker.parse(url)
    assert SECRET not in str(refused.value)


def test_a_search_is_in_the_folder_of_its_local_run_unless_a_server_was_named(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = Path("runs") / "mine"
    RunFile(["mine"], 1, [], []).write(folder)
    (folder / DATA).mkdir()
    for url in (None, str(folder)):
        assert connection.folder_of_search("mine", url) == folder
    assert connection.folder_of_search("mine", NOWHERE) is None
    assert connection.folder_of_search("other", None) is None
