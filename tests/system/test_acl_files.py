"""Repeated `romul acl`: it replaces its own users, and keeps what others wrote."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
import redis

from romul_actors.cli.commands.acl import _write
from romul_actors.errors import AclError
from romul_actors.local.processes import free_port
from romul_actors.local.redis_server import find_server
from tests.conftest import listens, romul, wait_for

ADMIN = "user admin on >secret ~* &* +@all"


@pytest.fixture
def make(tmp_path):
    """The folder of the files, and a function that calls `romul acl` for one team."""

    def call(team, *options, roles="worker,actor"):
        return romul(
            "acl",
            f"--out={tmp_path / 'users.acl'}",
            f"--secrets={tmp_path / 'secrets'}",
            f"--experiment={team}-*",
            "--roles=" + ",".join(f"{role}={team}-{role}" for role in roles.split(",")),
            *options,
        )

    return tmp_path, call


def test_another_teams_users_and_an_administrator_stay(make):
    folder, call = make
    file = folder / "users.acl"
    assert call("a").returncode == 0
    first = file.read_text().splitlines()
    file.write_text("\n".join([first[0], ADMIN, *first[1:]]) + "\n")
    done = call("b")
    assert done.returncode == 0, done.stderr
    lines = file.read_text().splitlines()
    assert lines[:4] == [first[0], ADMIN, *first[1:]]
    assert [line.split()[1] for line in lines[4:]] == ["b-worker", "b-actor"]
    assert "kept: admin, a-worker, a-actor" in done.stdout
    assert "replaced" not in done.stdout


def test_a_server_starts_with_the_file_and_knows_all_users(make):
    folder, call = make
    call("a")
    with (folder / "users.acl").open("a") as out:
        out.write(ADMIN + "\n")
    call("b")
    port = free_port()
    options = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "")
    server = subprocess.Popen(
        [find_server(), *options, "--aclfile", str(folder / "users.acl")],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: listens(port))
        client = redis.Redis(port=port, username="admin", password="secret", decode_responses=True)
        users = {"default", "admin", "a-worker", "a-actor", "b-worker", "b-actor"}
        assert set(client.acl_users()) == users
        # As the server itself writes the file: other rules in other words, sorted by name.
        client.acl_save()
        client.close()
    finally:
        server.terminate()
        server.wait()
    saved = (folder / "users.acl").read_text().splitlines()
    assert not saved[0].startswith("user default")
    done = call("b")
    assert done.returncode == 0, done.stderr
    lines = (folder / "users.acl").read_text().splitlines()
    changed = [old.split()[1] for old, new in zip(saved, lines, strict=True) if old != new]
    assert changed == ["b-actor", "b-worker"]


def test_a_killed_server_reads_what_scripts_have_written_with_the_file(make):
    folder, call = make
    call("a")
    with (folder / "users.acl").open("a") as out:
        out.write(ADMIN + "\n")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    options += ["--appendonly", "yes", "--appendfsync", "always"]
    options += ["--aclfile", str(folder / "users.acl")]
    # A transaction is written to the file as such only if it has more than one command.
    script = "redis.call('SET', 'a', 1); return redis.call('SET', 'b', 2)"
    for number in (1, 2):
        server = subprocess.Popen([find_server(), *options], stdout=subprocess.DEVNULL)
        try:
            wait_for(lambda: listens(port))
            client = redis.Redis(port=port, username="admin", password="secret")
            if number == 1:
                client.eval(script, 0)
            assert client.mget("a", "b") == [b"1", b"2"]
            with pytest.raises(redis.AuthenticationError):
                redis.Redis(port=port).ping()
            client.close()
        finally:
            server.kill()
            server.wait()


def test_a_user_of_the_call_is_replaced_in_place_and_named(make):
    folder, call = make
    file = folder / "users.acl"
    call("a")
    first = file.read_text().splitlines()
    file.write_text(file.read_text() + ADMIN + "\n")
    (folder / "secrets" / "a-worker" / "password").unlink()
    done = call("a")
    lines = file.read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["default", "a-worker", "a-actor", "admin"]
    assert (lines[1] == first[1], lines[2:]) == (False, [first[2], ADMIN])
    assert "replaced: a-worker, a-actor" in done.stdout
    assert "kept: admin" in done.stdout


@pytest.mark.parametrize(
    "line", ["user default off", "user default off sanitize-payload resetchannels -@all"]
)
def test_a_default_user_that_cannot_read_the_append_only_file_is_replaced(make, line):
    """Servers read their append-only file as the default user, and drop what it may not write."""
    folder, call = make
    file = folder / "users.acl"
    file.write_text(f"{line}\n{ADMIN}\n")
    assert call("a").returncode == 0
    lines = file.read_text().splitlines()
    assert (lines[0], lines[1]) == ("user default off ~* &* +@all", ADMIN)


def test_mosquittos_files_keep_other_users_too(make):
    folder, call = make
    broker = folder / "broker"
    call("a", f"--broker={broker}")
    hashes, rules = (broker / "passwords").read_text(), (broker / "acl").read_text()
    (broker / "passwords").write_text("admin:$7$x\n" + hashes)
    own = "topic read public/#\n\nuser admin\ntopic readwrite #\n\n# of team a\n"
    (broker / "acl").write_text(own + rules)
    done = call("b", f"--broker={broker}")
    assert done.returncode == 0, done.stderr
    assert (broker / "passwords").read_text().startswith("admin:$7$x\n" + hashes)
    assert (broker / "acl").read_text().startswith(own + rules)
    for name in ("passwords", "acl"):
        assert "b-worker" in (broker / name).read_text()
        assert f"{broker / name}: kept: admin, a-worker, a-actor" in done.stdout
    # The same call once more: the same rules, and of passwords as many lines.
    rules = (broker / "acl").read_text()
    length = len((broker / "passwords").read_text().splitlines())
    call("b", f"--broker={broker}")
    assert (broker / "acl").read_text() == rules
    assert len((broker / "passwords").read_text().splitlines()) == length == 5


def test_a_topic_that_a_user_has_no_more_is_gone(make):
    folder, call = make
    broker = folder / "broker"
    call("a", f"--broker={broker}", roles="worker")
    rules = (broker / "acl").read_text()
    (broker / "acl").write_text(rules + "topic readwrite #\npattern read %u/#\n")
    call("a", f"--broker={broker}", roles="worker")
    assert (broker / "acl").read_text() == rules + "pattern read %u/#\n"


def test_a_file_keeps_its_mode_and_is_never_half_written(make):
    folder, call = make
    file = folder / "users.acl"
    call("a")
    file.chmod(0o640)
    before = file.stat()
    # A process that has the old file open can read it to the end.
    with file.open() as reading:
        old = file.read_text()
        call("b")
        assert reading.read() == old != file.read_text()
    assert file.stat().st_mode == before.st_mode
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
def test_a_file_stays_the_servers_own_where_root_writes_it(make):
    folder, call = make
    file = folder / "users.acl"
    call("a")
    os.chown(file, 12345, 12346)
    file.chmod(0o600)
    call("b")
    found = file.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (12345, 12346, 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become two users")
def test_who_may_not_keep_the_files_owner_changes_nothing():
    # Not in pytest's own folder, which no other user may enter.
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o777)
        file = folder / "users.acl"
        file.write_text("user default off\n")
        with pytest.raises(AclError, match="belongs to user 0"):
            as_user(12345, lambda: _write(file, "user default off\nuser x on\n"))
        assert file.read_text() == "user default off\n"
        assert list(folder.iterdir()) == [file]


def as_user(uid, call):
    os.seteuid(uid)
    try:
        return call()
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("content", ["user default on nopass ~* +@all\n", ADMIN + "\n", "x = 1\n"])
def test_a_file_that_lets_connections_in_without_a_user_is_left_as_it_is(make, content):
    folder, call = make
    (folder / "users.acl").write_text(content)
    done = call("a")
    assert (done.returncode, "user default off" in " ".join(done.stderr.split())) == (2, True)
    assert (folder / "users.acl").read_text() == content


def test_a_user_of_two_roles_is_refused(make):
    """The server would refuse the whole file if a user had two lines."""
    folder, call = make
    done = call("a", "--roles=worker=x,actor=x")
    assert (done.returncode, "'x' is given twice" in " ".join(done.stderr.split())) == (2, True)
    assert not (folder / "users.acl").exists()


def test_a_file_of_blank_lines_admits_no_more_than_a_new_one(make):
    folder, call = make
    file = folder / "users.acl"
    file.write_text("\n \n")
    assert call("a").returncode == 0
    assert file.read_text().startswith("user default off ~* &* +@all\n")


def test_a_folder_in_which_no_file_can_be_replaced_is_named(tmp_path):
    file = tmp_path / "users.acl"
    # As a container's engine mounts a single file: a name that cannot be taken over.
    file.mkdir()
    with pytest.raises(AclError, match=r"users\.acl cannot be replaced: .*folder must be writable"):
        _write(file, "user default off\n")
    assert [path.name for path in tmp_path.iterdir()] == ["users.acl"]
