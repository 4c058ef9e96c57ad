"""Other ways to reach a server: Sentinels, a Cluster, TLS."""

import asyncio
import contextlib
import datetime as dt
import gc
import ipaddress
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from romul_actors.errors import StoreError, StoreUnavailableError
from romul_actors.local import redis_server
from romul_actors.local.processes import free_port
from romul_actors.local.redis_server import check_idle, embedded_server, find_server, server_of
from romul_actors.mqtt import connection
from romul_actors.mqtt.broker import Broker
from romul_actors.observe.doctor import examine
from romul_actors.store.redis import RedisStore, urls
from romul_actors.waiting import cancel
from tests.conftest import answers, romul, wait_for
from tests.system.conftest import System
from tests.trials import declare


class Servers:
    """Server processes of one test."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []

    def start(self, *settings, port, role="server", password=None):
        command = [find_server(), *settings]
        with (self.folder / f"{role}-{port}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        self.processes.append(process)
        client = redis.Redis(port=port, protocol=2, password=password)
        wait_for(lambda: answers(client))
        client.close()
        return process

    def plain(self, *more, password=None):
        port = free_port()
        settings = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", *more]
        if password is not None:
            settings += ["--requirepass", password]
        return port, self.start(*settings, port=port, password=password)

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def servers(tmp_path):
    made = Servers(tmp_path)
    yield made
    made.close()


SNAPSHOT = "a-folder.rdb"


def no_memory(client):
    client.config_set("maxmemory", "1")


def too_few_replicas(client):
    client.config_set("min-replicas-to-write", "1")


def a_replica(client):
    client.replicaof("127.0.0.1", "1")


def no_snapshots(client):
    (Path(client.config_get("dir")["dir"]) / SNAPSHOT).mkdir()
    client.config_set("save", "3600 1")
    client.set("changed", "1")
    with contextlib.suppress(redis.ResponseError):
        client.bgsave()
    wait_for(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")


def another_password(client):
    client.config_set("requirepass", "another")
    client.client_kill_filter(_type="normal", skipme=True)


def a_long_script(client):
    port = client.connection_pool.connection_kwargs["port"]
    client.config_set("busy-reply-threshold", "10")
    with socket.create_connection(("127.0.0.1", port)) as other:
        other.sendall(b'EVAL "while true do end" 0\r\n')
        wait_for(lambda: is_busy(client))


def is_busy(client):
    try:
        return not client.ping()
    except redis.ResponseError as error:
        return "BUSY" in str(error)


@pytest.mark.parametrize(
    ("become", "said"),
    [
        (no_memory, "cannot do it now: command not allowed when used memory"),
        (too_few_replicas, "cannot do it now: NOREPLICAS"),
        (a_replica, "cannot do it now: You can't write against a read only replica"),
        (no_snapshots, "cannot do it now: MISCONF"),
        (a_long_script, "cannot do it now: BUSY"),
        (another_password, "refuses access: Authentication required"),
    ],
)
async def test_what_a_server_cannot_do_for_now_is_no_experiments_fault(
    servers, monkeypatch, become, said
):
    monkeypatch.setattr(urls, "RETRY_CAP_S", 0.01)
    port, _ = servers.plain("--dir", str(servers.folder), "--dbfilename", SNAPSHOT)
    client = redis.Redis(port=port, protocol=2, decode_responses=True)
    store = RedisStore(f"redis://127.0.0.1:{port}")
    await store.create("e", "{}", b"submitted")
    become(client)
    with pytest.raises(StoreUnavailableError, match=said):
        await store.tick("e", b"tick", 1000)
    await store.close()
    client.close()


@pytest.mark.parametrize(
    ("become", "said"),
    [(no_memory, "MiB of 0: it refuses writes"), (a_replica, "a replica of 127.0.0.1:1")],
)
def test_the_doctor_says_that_nothing_can_be_written(servers, become, said):
    port, _ = servers.plain()
    client = redis.Redis(port=port, protocol=2)
    become(client)
    client.close()
    done = romul("doctor", f"--redis=redis://127.0.0.1:{port}/0", "--json")
    faults = [found for found in json.loads(done.stdout) if found["level"] == "fault"]
    assert [said in fault["what"] for fault in faults] == [True]
    assert done.returncode == 3


async def test_a_name_that_leads_to_another_primary_is_followed(servers, monkeypatch):
    """So do names of managed servers; the old primary keeps its connections."""
    monkeypatch.setattr(urls, "RETRY_CAP_S", 0.01)
    (first, _), (second, _) = servers.plain(), servers.plain()
    primary = first

    async def forward(reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", primary)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    name = await asyncio.start_server(forward, "127.0.0.1", 0)
    store = RedisStore(f"redis://127.0.0.1:{name.sockets[0].getsockname()[1]}")
    await store.create("e", "{}", b"submitted")
    old, primary = redis.Redis(port=first, protocol=2), second
    old.replicaof("127.0.0.1", second)
    await store.create("f", "{}", b"submitted")
    assert list(await store.experiments()) == ["f"]
    await store.close()
    old.close()
    name.close()


async def copy(reader, writer):
    with contextlib.closing(writer):
        while data := await reader.read(65_536):
            writer.write(data)


@pytest.mark.timeout(240)
def test_a_server_without_memory_for_longer_than_a_lease_costs_no_attempt(servers, tmp_path):
    port, _ = servers.plain()
    system = System(f"redis://127.0.0.1:{port}", tmp_path)
    permits = tmp_path / "permits"
    permits.mkdir()
    try:
        system.submit(task="permitted", constants={"permits": str(permits)}, steps=2)
        actor = system.actor()
        system.worker("--allow=permitted")
        [entry] = wait_for(system.leases)
        wait_for(lambda: system.presence(system.leases()[entry]))
        system.client.config_set("maxmemory", "1")
        refused = time.monotonic()
        # Two leases.
        wait_for(
            lambda: time.monotonic() > refused + 4 and "cannot do it now" in actor.log.read_text()
        )
        assert "experiment e cannot be served" not in actor.log.read_text()
        system.client.config_set("maxmemory", "0")
        (permits / "open").touch()
        system.wait_for_status("finished")
        assert json.loads(system.meta()["causes"]) == {}
    finally:
        system.close()


@pytest.mark.timeout(240)
def test_behind_sentinels_a_replica_takes_over_and_the_run_goes_on(servers, tmp_path):
    first, primary = servers.plain(
        *("--appendonly", "yes", "--appenddirname", "one"),
        # By default a replica waits 5 s for others to come.
        *("--repl-diskless-sync-delay", "0"),
    )
    second, _ = servers.plain(
        "--replicaof", "127.0.0.1", str(first), "--appendonly", "yes", "--appenddirname", "two"
    )
    sentinels = []
    for _ in range(3):
        port = free_port()
        file = tmp_path / f"sentinel-{port}.conf"
        file.write_text(
            f"port {port}\nbind 127.0.0.1\n"
            f"sentinel monitor romul 127.0.0.1 {first} 2\n"
            "sentinel down-after-milliseconds romul 1000\n"
            "sentinel failover-timeout romul 3000\n"
        )
        servers.start(str(file), "--sentinel", port=port, role="sentinel")
        sentinels.append(port)
    url = "redis+sentinel://" + ",".join(f"127.0.0.1:{p}" for p in sentinels) + "/romul"
    system = System(f"redis://127.0.0.1:{first}", tmp_path)
    system.environment["ROMUL_REDIS_URL"] = url
    replica = redis.Redis(port=second, protocol=2)
    try:
        wait_for(lambda: replica.info("replication")["master_link_status"] == "up")
        watch: Any = redis.Redis(port=sentinels[0], protocol=2, decode_responses=True)
        wait_for(lambda: int(watch.sentinel_masters()["romul"]["num-other-sentinels"]) == 2)
        wait_for(lambda: int(watch.sentinel_masters()["romul"]["num-slaves"]) == 1)
        system.submit(steps=20, constants={"seconds": 0.1}, timeouts={"lease_s": 3})
        system.actor()
        for _ in range(2):
            system.worker()
        wait_for(lambda: len(system.history(event="result")) > 20)
        os.kill(primary.pid, signal.SIGKILL)
        system.client.close()
        system.client = redis.Redis(port=second, protocol=2, decode_responses=True)
        wait_for(lambda: replica.info("replication")["role"] == "master", 60)
        system.wait_for_status("finished", seconds=120)
        # What the dead one had not passed on was done again; nothing is missing or there twice.
        meta = system.meta()
        assert (meta["created"], meta["reported"]) == ("80", "80")
        results = [line["trial"] for line in system.history(event="result")]
        assert len(results) == len(set(results)) == 80
        watch.close()
    finally:
        replica.close()
        system.client.flushall()
        system.close()


async def test_sentinels_with_a_login_of_their_own(servers, tmp_path, monkeypatch):
    monkeypatch.setattr(urls, "RETRY_CAP_S", 0.01)
    primary, _ = servers.plain(password="secret")
    port = free_port()
    file = tmp_path / "sentinel.conf"
    file.write_text(
        f"port {port}\nbind 127.0.0.1\nrequirepass own\n"
        f"sentinel monitor romul 127.0.0.1 {primary} 1\nsentinel auth-pass romul secret\n"
    )
    servers.start(str(file), "--sentinel", port=port, role="sentinel", password="own")
    place = f"redis+sentinel://:secret@127.0.0.1:1,127.0.0.1:{port}"
    said = f"Sentinel 127.0.0.1:{port}: "
    for rest, why in (
        ("/romul", f"access refused: .*; {said}Authentication required.*own password with"),
        ("/romul?sentinel_password=wrong", f"access refused: .*; {said}invalid username-password"),
        ("/other?sentinel_password=own", f"; {said}'other' is unknown .known services: 'romul'"),
    ):
        store = RedisStore(place + rest)
        with pytest.raises(StoreError, match=why) as refused:
            await store.check()
        assert "Sentinel 127.0.0.1:1: Error 111" in str(refused.value)
        assert "<" not in str(refused.value)
        await store.close()
    store = RedisStore(f"{place}/romul?sentinel_password=own")
    assert await store.experiments() == {}
    await store.close()


ROTATED = "~* &* +@all"


def rotate(clients, name, old, new):
    """Replace a user's password with the commands of docs/deploy.md; disconnect all users."""
    for client in clients:
        client.execute_command("ACL", "SETUSER", name, f">{new}")
        client.execute_command("ACL", "SETUSER", name, f"<{old}")
        client.client_kill_filter(_type="normal", skipme=True)


async def place_of_one_that_follows_its_file(url, file, clients):
    """The place that a store shows, after a client has continued with the new password file."""
    file.write_text("first\n")
    store = RedisStore(url)
    assert await store.experiments() == {}
    rotate(clients, "worker", "first", "second")
    with pytest.raises(StoreUnavailableError, match="refuses access"):
        await store.experiments()
    file.write_text("second\n")
    assert await store.experiments() == {}
    # A file that is gone for a moment is no other kind of error.
    file.unlink()
    for client in clients:
        client.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(StoreUnavailableError, match=r"ROMUL_REDIS_PASSWORD_FILE: .*No such file"):
        await store.experiments()
    with pytest.raises(StoreError, match=r"ROMUL_REDIS_PASSWORD_FILE: .*No such file"):
        RedisStore(url)
    await store.close()
    return store.connection.place


async def test_a_rotated_password_is_read_from_its_file(servers, tmp_path, monkeypatch):
    """Both the server's and the Sentinels' password."""
    monkeypatch.setattr(urls, "RETRY_CAP_S", 0.01)
    primary, _ = servers.plain()
    admin = redis.Redis(port=primary, protocol=2)
    admin.execute_command("ACL", "SETUSER", "worker", "on", ">first", *ROTATED.split())
    port = free_port()
    conf = tmp_path / "sentinel.conf"
    conf.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor romul 127.0.0.1 {primary} 1\n")
    servers.start(str(conf), "--sentinel", port=port, role="sentinel")
    sentinel = redis.Redis(port=port, protocol=2)
    sentinel.execute_command("ACL", "SETUSER", "default", "resetpass", ">own-first")
    own, file = tmp_path / "own", tmp_path / "password"
    own.write_text("own-first")
    monkeypatch.setenv("ROMUL_SENTINEL_PASSWORD_FILE", str(own))
    monkeypatch.setenv("ROMUL_REDIS_PASSWORD_FILE", str(file))
    for url in (
        f"redis://worker@127.0.0.1:{primary}/0",
        f"redis+sentinel://worker@127.0.0.1:{port}/romul",
    ):
        assert await place_of_one_that_follows_its_file(url, file, [admin]) == url
        admin.execute_command("ACL", "SETUSER", "worker", ">first", "<second")
    file.write_text("first")
    store = RedisStore(f"redis+sentinel://worker@127.0.0.1:{port}/romul")
    sentinel.execute_command("ACL", "SETUSER", "default", "<own-first", ">own-second")
    with pytest.raises(StoreError, match="invalid username-password"):
        await store.experiments()
    own.write_text("own-second")
    assert await store.experiments() == {}
    await store.close()
    admin.close()
    sentinel.close()


async def test_a_clusters_rotated_password_is_read_from_its_file(
    cluster_url, tmp_path, monkeypatch
):
    monkeypatch.setattr(urls, "RETRY_CAP_S", 0.01)
    hosts = cluster_url.partition("@")[2]
    nodes = [redis.Redis.from_url(f"redis://:secret@{h}", protocol=2) for h in hosts.split(",")]
    for node in nodes:
        node.flushall()
        node.execute_command("ACL", "SETUSER", "worker", "on", ">first", *ROTATED.split())
    file = tmp_path / "password"
    monkeypatch.setenv("ROMUL_REDIS_PASSWORD_FILE", str(file))
    url = f"redis+cluster://worker@{hosts}"
    assert await place_of_one_that_follows_its_file(url, file, nodes) == url
    for node in nodes:
        node.execute_command("ACL", "DELUSER", "worker")
        node.close()


async def test_an_experiment_of_a_cluster_goes_on_though_it_is_taken_off_the_list(cluster_url):
    store, late = RedisStore(cluster_url), RedisStore(cluster_url)
    for name in ("ours", "theirs"):
        await store.create(name, declare(name=name).model_dump_json(), b"submitted")
    listed = await store.experiments()
    assert {"ours", "theirs"} <= {*listed}
    await late.connection.client.srem("romul:experiments", "ours")
    for _ in range(2):
        assert await store.experiments() == listed
    assert "ours" not in await late.experiments()
    for name in ("ours", "theirs"):
        await late.remove(name)
    assert not {"ours", "theirs"} & {*await store.experiments()}
    await store.close()
    await late.close()


@pytest.mark.timeout(240)
def test_two_searches_run_on_a_cluster(cluster_url, tmp_path):
    first = cluster_url.partition("@")[2].split(",")[0]
    client = redis.RedisCluster.from_url(
        f"redis://:secret@{first}", decode_responses=True, protocol=2
    )
    system = System(f"redis://:secret@{first}", tmp_path)
    system.client.close()
    system.client = client
    system.environment["ROMUL_REDIS_URL"] = cluster_url
    client.flushall(target_nodes=redis.RedisCluster.PRIMARIES)
    try:
        for name in ("one", "two", "three"):
            system.submit(name=name, steps=10, population=6)
        system.actor()
        for _ in range(2):
            system.worker()
        for name in ("one", "two", "three"):
            system.wait_for_status("finished", name)
            assert system.meta(name)["reported"] == "60"
        output = json.loads(system.call("status", "--json").stdout)
        assert [row["status"] for row in output] == ["finished"] * 3
        # An unreadable experiment does not hide the others.
        client.hset("romul:{two}", "spec", "{}")
        output = json.loads(system.call("status", "--json").stdout)
        assert [bool(row["reason"]) for row in output] == [False, False, True]
        # They live on different nodes.
        nodes = {client.get_node_from_key(f"romul:{{{n}}}").port for n in ("one", "two", "three")}
        assert len(nodes) > 1
        assert system.call("remove", "two", "--yes").returncode == 0
    finally:
        system.close()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("redis+cluster://:wrong@", "access refused"), (None, "no Redis or Valkey server answers")],
)
async def test_a_cluster_that_cannot_be_entered_is_an_error_in_words(
    cluster_url, monkeypatch, wrong, said
):
    monkeypatch.setattr(urls, "RETRY_CAP_S", 0.01)
    place = cluster_url.partition("@")[2]
    store = RedisStore(f"{wrong}{place}" if wrong else "redis+cluster://127.0.0.1:1")
    with pytest.raises(StoreError, match=said):
        await store.check()
    with pytest.raises(StoreUnavailableError):
        await store.tick("e", b"tick", 1000)
    await store.close()


def certificates(folder, *, names_issuer=True):
    """A test's certificate authority, and a server's certificate: (ca, cert, key).

    Python 3.13 and later refuse a certificate that does not name its issuer's key.
    """
    now = dt.datetime.now(dt.UTC)

    def make(name, issuer=None, issuer_key=None):
        key = ec.generate_private_key(ec.SECP256R1())
        ours = key.public_key()
        theirs = ours if issuer_key is None else issuer_key.public_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        alternative = x509.SubjectAlternativeName(
            [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        is_ca = issuer is None
        others = "content_commitment key_encipherment data_encipherment key_agreement"
        usage = dict.fromkeys(f"{others} encipher_only decipher_only".split(), False)
        usage |= {"digital_signature": True, "key_cert_sign": is_ca, "crl_sign": is_ca}
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(ours)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(alternative, critical=False)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(ours), critical=False)
        )
        if names_issuer:
            named = x509.AuthorityKeyIdentifier.from_issuer_public_key(theirs)
            builder = builder.add_extension(named, critical=False)
        certificate = builder.sign(issuer_key or key, hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return subject, key

    authority, key = make("ca")
    make("server", authority, key)
    return folder / "ca.pem", folder / "server.pem", folder / "server.key"


@contextlib.asynccontextmanager
async def behind_tls(url, cert, key):
    """A server with TLS in front of the one of `url`: its port."""
    server = urlsplit(url)

    async def forward(reader, writer):
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()

    async def serve(reader, writer):
        inner, outer = await asyncio.open_connection(server.hostname, server.port)
        await asyncio.gather(forward(reader, outer), forward(inner, writer))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        yield url.replace(f":{server.port}", f":{port}")


async def status(system, url, **environment):
    called = await asyncio.to_thread(system.call, "status", "--json", "--redis", url, **environment)
    return called.returncode, called.stdout, " ".join(called.stderr.split())


async def test_a_server_behind_tls_is_trusted_by_an_authority_of_ones_own(system, tmp_path):
    ca, cert, key = certificates(tmp_path)
    async with behind_tls(system.url, cert, key) as place:
        secured = place.replace("redis://", "rediss://")
        assert (await status(system, secured, SSL_CERT_FILE=str(ca)))[:2] == (0, "[]\n")
        code, _, said = await status(system, secured)
        assert (code, "SSL_CERT_FILE to" in said) == (3, True), said
        assert "the server has a certificate that is not trusted here" in said
        code, _, said = await status(system, secured, SSL_CERT_FILE=str(tmp_path / "none.pem"))
        assert (code, "none.pem, but no file is there" in said) == (3, True), said
        named = secured.replace("127.0.0.1", "localhost")
        code, _, said = await status(system, named, SSL_CERT_FILE=str(ca))
        assert (code, "a name that the server's certificate is for" in said) == (3, True), said
        # Waiting would not help.
        ended = await asyncio.to_thread(system.call, "worker", "--redis", secured)
        assert (ended.returncode, "SSL_CERT_FILE to" in ended.stderr) == (3, True), ended.stderr
        store = RedisStore(secured)
        with pytest.raises(StoreUnavailableError, match="a certificate that is not trusted here"):
            await store.tick("e", b"tick", 1000)
        await store.close()
        code, _, said = await status(system, place)
        assert (code, "does it require TLS?" in said) == (3, True), said


@pytest.mark.skipif(sys.version_info < (3, 13), reason="this Python accepts it")
async def test_a_certificate_that_only_newer_pythons_refuse(system, tmp_path):
    ca, cert, key = certificates(tmp_path, names_issuer=False)
    async with behind_tls(system.url, cert, key) as place:
        secured = place.replace("redis://", "rediss://")
        code, _, said = await status(system, secured, SSL_CERT_FILE=str(ca))
        assert (code, "Missing Authority Key Identifier" in said) == (3, True), said
        assert "make it anew: Python 3.13 and later" in said


@pytest.mark.skipif(not shutil.which("mosquitto"), reason="no mosquitto here")
def test_a_broker_behind_tls_and_a_password(system, tmp_path):
    ca, cert, key = certificates(tmp_path)
    port, users = free_port(), tmp_path / "users"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(users), "w", "secret"], check=True)
    file = tmp_path / "mosquitto.conf"
    file.write_text(
        f"listener {port} 127.0.0.1\ncafile {ca}\ncertfile {cert}\nkeyfile {key}\n"
        f"allow_anonymous false\npassword_file {users}\nuser root\n"
    )
    with (tmp_path / "mosquitto.log").open("wb") as log:
        broker = subprocess.Popen(["mosquitto", "-c", str(file)], stdout=log, stderr=log)
    try:
        good = {"ROMUL_MQTT_URL": f"mqtts://w:secret@127.0.0.1:{port}", "ROMUL_MQTT_CA": str(ca)}
        system.submit(task="misbehaving:slow", steps=1)
        system.actor(**good)
        worker = system.worker("--name=w", "--grace=30", **good)
        wait_for(lambda: system.presence("w").get("state") == "training")
        # Neither a wrong password nor an unknown certificate gets in.
        for wrong, said in (
            ({**good, "ROMUL_MQTT_URL": f"mqtts://w:wrong@127.0.0.1:{port}"}, "Not authorized"),
            ({"ROMUL_MQTT_URL": good["ROMUL_MQTT_URL"]}, "CERTIFICATE_VERIFY_FAILED"),
        ):
            refused = system.call("control", "w", "drain", **wrong)
            assert (refused.returncode, said in refused.stderr) == (3, True), refused.stderr
        assert worker.poll() is None
        wait_for(lambda: system.call("control", "w", "drain", **good).returncode == 0)

        def drained():
            system.call("control", "w", "drain", **good)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return worker.wait(1) == 0
            return False

        wait_for(drained, 30)
    finally:
        broker.kill()
        broker.wait()


def test_a_server_that_hangs_keeps_its_data_to_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(redis_server, "ENDS_S", 0.2)

    async def main():
        async with embedded_server(tmp_path) as url:
            number = int((tmp_path / "redis" / "server.pid").read_text())
            os.kill(number, signal.SIGSTOP)
            try:
                with pytest.raises(StoreError, match="but does not answer"):
                    await asyncio.to_thread(check_idle, tmp_path)
                # It is not the URL file that protects the server.
                (tmp_path / "redis.url").unlink()
                with pytest.raises(StoreError, match="but does not answer"):
                    async with server_of(tmp_path):
                        pass
            finally:
                os.kill(number, signal.SIGCONT)
            assert redis.Redis.from_url(url).ping()
        async with embedded_server(tmp_path):
            pass

    asyncio.run(main())


def test_a_server_whose_parent_was_killed_is_waited_for(tmp_path):
    # It keeps its data locked until it has ended.
    data = tmp_path / "redis"
    data.mkdir()
    holder = subprocess.Popen(["flock", data / "server.lock", "sleep", "1"])
    wait_for((data / "server.lock").exists)

    async def main():
        async with embedded_server(tmp_path):
            return holder.poll()

    assert asyncio.run(main()) == 0


# The client of MQTT leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
async def test_a_brokers_certificate_that_is_not_trusted_is_one_warning_and_named_with_its_remedy(
    system, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(connection, "RETRY_S", (0.01, 0.01))
    caplog.set_level("DEBUG", "romul.presence")
    _, cert, key = certificates(tmp_path)

    async def serve(_, writer):
        writer.close()

    async def ignore(_):
        return None

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        broker = Broker.parse(f"mqtts://127.0.0.1:{port}")
        link = connection.MqttConnection(broker, "w", [], ignore)
        running = asyncio.create_task(link.run())
        async with asyncio.timeout(30):
            while len(caplog.records) < 4:
                await asyncio.sleep(0.01)
        await cancel(running)
        findings = await examine(system.url, broker)
    gc.collect()
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING"] + ["DEBUG"] * (len(levels) - 1)
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.records[0].getMessage()
    assert (findings[-1].level, "--mqtt-ca" in findings[-1].remedy) == ("fault", True)
