"""`romul launch` on real engines: this machine, a real sshd, a real Slurm, a real Ray cluster."""

import asyncio
import contextlib
import logging
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from romul_actors.errors import RomulError
from romul_actors.launch import Fleet, FleetError, LaunchError, local_workers, slurm, ssh
from romul_actors.local import processes
from romul_actors.local.processes import free_port
from tests.conftest import listens, wait_for
from tests.system.conftest import TASKS, processes_with
from tests.warm import COLD

PROGRAM = " ".join(COLD)
OURS = ["--", "--allow=misbehaving", f"--path={TASKS}"]


def submit(system, **fields):
    given = {"population": 4, "steps": 200, "constants": {"seconds": 0.2}}
    system.submit(**{**given, **fields})
    system.actor()


def alive(system):
    return [w for w in system.as_json("workers", "e") if w["alive"]]


def password(system):
    """The server's password, which must not be visible anywhere."""
    found = system.url.rpartition("@")[0].rpartition(":")[2]
    assert len(found) > 8
    return found


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children_of(pid):
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if parent_of(process.name) == pid:
                found.append(int(process.name))
    return found


def some_results(system, more):
    seen = len(system.history(event="result"))
    wait_for(lambda: len(system.history(event="result")) >= seen + more, 60)


def ends_in_order(process, seconds=60):
    process.send_signal(signal.SIGTERM)
    assert process.wait(seconds) == 0, process.log.read_text()
    assert "Traceback" not in process.log.read_text()


def test_workers_of_this_machine_are_started_again_and_ended_together(system):
    submit(system)
    logs = system.folder / "logs"
    launched = system.start("launch", "--on=local", "--workers=2", f"--logs={logs}", *OURS)
    wait_for(lambda: len(alive(system)) == 2, 60)
    some_results(system, 5)
    before = {worker["worker"] for worker in alive(system)}
    os.kill(int(min(before).split("-")[-2]), signal.SIGKILL)
    wait_for(lambda: {worker["worker"] for worker in alive(system)} - before, 60)
    ends_in_order(launched)
    assert not processes_with(str(logs))


def test_workers_of_this_machine_read_a_passwords_file_and_others_get_what_it_holds(system):
    """Workers must read the file, if there is one, so that a password can be rotated."""
    file = system.folder / "password"
    file.write_text(password(system) + "\n")
    place = system.url.rpartition("@")[2]
    options = ["launch", f"--redis=redis://default@{place}"]
    submit(system)
    given = {"ROMUL_REDIS_PASSWORD_FILE": str(file), "SSL_CERT_FILE": "/etc/ours.pem"}
    logs = system.folder / "logs"
    launched = system.start(*options, "--on=local", f"--logs={logs}", *OURS, **given)
    [worker] = wait_for(lambda: alive(system), 60)
    pid = worker["worker"].split("-")[-2]
    environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
    assert f"ROMUL_REDIS_URL=redis://default@{place}" in environment
    assert f"ROMUL_REDIS_PASSWORD_FILE={file}" in environment
    assert password(system) not in "".join(environment)
    ends_in_order(launched)
    # A program in place of ssh, that keeps what a host would be told.
    bin_, told = system.folder / "bin", system.folder / "told"
    bin_.mkdir()
    (bin_ / "ssh").write_text(f"#!/bin/sh\ncat > '{told}'\n")
    (bin_ / "ssh").chmod(0o755)
    given["PATH"] = f"{bin_}:{os.environ['PATH']}"
    launched = system.start(*options, "--on=ssh", "--host=h", *OURS, **given)
    wait_for(lambda: told.exists() and told.read_text().endswith(".\n"))
    ends_in_order(launched)
    lines = told.read_text().splitlines()
    assert f"ROMUL_REDIS_URL=redis://default:{password(system)}@{place}" in lines
    assert "SSL_CERT_FILE=/etc/ours.pem" in lines


async def test_a_worker_that_ends_again_and_again_ends_no_other(tmp_path, monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: seconds[0]))

    async def spawn(arguments, *_):
        return await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", arguments[1])

    async def lasts(crew, ending, until):
        """Let the crew look once a second; return when the process that ends was started."""
        starts = {ending.began}
        while seconds[0] < until:
            seconds[0] += 1
            if ending.process is not None:
                await ending.process.wait()
            await crew.start()
            starts.add(ending.began)
        return sorted(starts)

    monkeypatch.setattr(processes, "spawn", spawn)
    good, bad = (
        processes.Member(name, ["worker", code], {})
        for name, code in (("good", "import time; time.sleep(600)"), ("bad", "exit(1)"))
    )
    crew = processes.Crew([good, bad], tmp_path, all_needed=False)
    async with processes.running(crew):
        first = good.process
        assert await lasts(crew, bad, 200) == [0, 1, 2, 3, 4, 7, 12, 21, 38, 71, 132, 193]
        assert good.process is first
        good.arguments = bad.arguments
        first.kill()
        with pytest.raises(RomulError, match="ended 5 times within 60 s"):
            await lasts(crew, good, 400)
        assert seconds[0] < 210
    # If every process is needed, one that fails is enough.
    needed = processes.Member("bad", bad.arguments, {})
    crew = processes.Crew([needed], tmp_path)
    async with processes.running(crew):
        with pytest.raises(RomulError, match="ended 5 times within 60 s"):
            await lasts(crew, needed, 500)


async def test_a_worker_that_cannot_be_started_ends_no_other(tmp_path, monkeypatch, caplog):
    async def spawn(arguments, log, environment):
        with log.open("ab"):
            return await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", arguments[1])

    monkeypatch.setattr(processes, "spawn", spawn)
    good, bad = (
        processes.Member(name, ["worker", "import time; time.sleep(600)"], {})
        for name in ("good", "bad")
    )
    # A log that cannot be opened.
    (tmp_path / "bad.log").mkdir()
    async with processes.running(processes.Crew([good, bad], tmp_path, all_needed=False)) as crew:
        assert "bad cannot be started: [Errno 21] Is a directory" in caplog.text
        (tmp_path / "bad.log").rmdir()
        bad.paused_until = 0.0
        await crew.start()
        assert [each.process.returncode for each in (good, bad)] == [None, None]
    (tmp_path / "needed.log").mkdir()
    needed = processes.Member("needed", good.arguments, {})
    with pytest.raises(RomulError, match=r"needed cannot be started: .*Is a directory"):
        async with processes.running(processes.Crew([needed], tmp_path)):
            pass


def test_where_the_server_cannot_be_used_no_worker_is_started(system):
    logs = system.folder / "logs"
    options = ["launch", "--on=local", f"--logs={logs}"]
    wrong = system.call(*options, "--redis=redis://127.0.0.1:1/0")
    assert (wrong.returncode, "no Redis or Valkey server answers" in wrong.stderr) == (3, True)
    refused = system.call(*options, f"--redis={system.url.replace(password(system), 'other')}")
    assert (refused.returncode, "password" in refused.stderr.lower()) == (3, True), refused.stderr
    assert not logs.exists()


def test_each_worker_has_gpus_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,GPU-6")
    fleet = Fleet(workers=3, gpus=2, environment={"ROMUL_REDIS_URL": "redis://x"})
    made = local_workers.members(fleet, tmp_path)
    assert [m.environment["CUDA_VISIBLE_DEVICES"] for m in made] == ["0,1", "2,3", "4,5"]
    assert all(m.environment["ROMUL_REDIS_URL"] == "redis://x" for m in made)
    assert "CUDA_VISIBLE_DEVICES=2,3 romul worker" in ssh.remote_script(fleet, 1)
    assert "#SBATCH --gpus-per-task=2" in slurm.script(fleet)
    without = local_workers.members(Fleet(workers=1), tmp_path)[0].environment
    assert without.get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")


def test_more_gpus_than_there_are_is_a_clear_error(system, tmp_path):
    options = ["launch", "--on=local", "--workers=2", "--gpus=2", "--"]
    output = system.call(*options, CUDA_VISIBLE_DEVICES="4,5,6")
    assert (output.returncode, output.stdout) == (1, "")
    assert "need 4 GPUs, but CUDA_VISIBLE_DEVICES lists 3" in output.stderr
    # As the driver's own program shows them.
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\n")
    smi.chmod(0o755)
    without = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", {**without, "PATH": str(tmp_path)})
        made = local_workers.members(Fleet(workers=1, gpus=1), tmp_path)
        assert made[0].environment["CUDA_VISIBLE_DEVICES"] == "0"
        with pytest.raises(LaunchError, match="nvidia-smi lists 1"):
            local_workers.members(Fleet(workers=2, gpus=1), tmp_path)


# -- ssh ------------------------------------------------------------------------------------------


@pytest.fixture
def sshd(tmp_path):
    """ssh options that reach this test's own server."""
    program = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    if program is None or shutil.which("ssh") is None:
        pytest.skip("no sshd and ssh on this machine")
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True
        )
    port = free_port()
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\n"
        f"AuthorizedKeysFile {tmp_path}/user.pub\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (tmp_path / "sshd.log").open("wb") as log:
        server = subprocess.Popen(
            [program, "-D", "-e", "-f", str(tmp_path / "sshd_config")], stdout=log, stderr=log
        )
    wait_for(lambda: b"listening" in (tmp_path / "sshd.log").read_bytes())
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} " + (tmp_path / "host.pub").read_text())
    yield [
        *("-p", str(port), "-i", str(tmp_path / "user"), "-F", "none"),
        f"-oUserKnownHostsFile={tmp_path}/known",
    ]
    server.kill()
    server.wait()


@pytest.mark.long(15)
def test_workers_on_hosts_that_ssh_reaches(system, sshd):
    submit(system)
    options = [f"--ssh-option={option}" for option in sshd]
    launched = system.start(
        *("launch", "--on=ssh", "--workers=2", "--host=127.0.0.1", f"--program={PROGRAM}"),
        *options,
        *OURS,
    )
    wait_for(lambda: len(alive(system)) == 2, 60)
    some_results(system, 5)
    # The password is in no list of processes.
    assert not processes_with(password(system))
    before = {worker["worker"] for worker in alive(system)}
    os.kill(int(min(before).split("-")[-2]), signal.SIGKILL)
    wait_for(lambda: {worker["worker"] for worker in alive(system)} - before, 60)
    ends_in_order(launched)
    wait_for(lambda: not alive(system))
    # Asked to end, they gave back what they had: no worker was lost but the one that was killed.
    assert {line["reason"] for line in system.history(event="released")} <= {"preempted"}
    assert len(system.history(event="failed")) <= 1


def test_workers_end_when_the_command_that_launched_them_is_killed(system, sshd):
    submit(system)
    options = [f"--ssh-option={option}" for option in sshd]
    launched = system.start(
        *("launch", "--on=ssh", "--host=127.0.0.1", f"--program={PROGRAM}"), *options, *OURS
    )
    wait_for(lambda: alive(system), 60)
    [client] = children_of(launched.pid)
    os.kill(launched.pid, signal.SIGKILL)
    os.kill(client, signal.SIGKILL)
    wait_for(lambda: not alive(system), 60)
    # They ended by themselves: no lease of theirs is left.
    assert system.leases() == {}


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh here")
def test_a_host_that_is_not_one_is_refused(system):
    wrong = system.call("launch", "--on=ssh", "--host=-oProxyCommand=touch /tmp/x", *OURS)
    assert wrong.returncode == 2
    assert "is not a host" in wrong.stderr
    assert "no host to start" in system.call("launch", "--on=ssh", *OURS).stderr
    with pytest.raises(FleetError, match="several lines"):
        ssh.settings(Fleet(workers=1, environment={"A": "x\ntouch /tmp/y"}))
    given = {"SSL_CERT_FILE": "/etc/ours.pem\n"}
    wrong = system.call("launch", "--on=ssh", "--workers=2", "--host=h", *OURS, **given)
    assert (wrong.returncode, wrong.stderr) == (2, "romul: SSL_CERT_FILE has several lines\n")


@pytest.mark.parametrize("engine", ["local", "ssh", "slurm", "ray"])
def test_a_wrong_option_of_the_workers_is_refused_before_one_begins(system, engine):
    wrong = system.call("launch", f"--on={engine}", "--", "--alow=mine")
    assert wrong.returncode == 2
    assert re.search("No such option:? '?--alow", wrong.stderr), wrong.stderr
    wrong = system.call("launch", f"--on={engine}", "--", "--allow=mine", "other")
    assert wrong.returncode == 2
    assert "options only, not 'other'" in wrong.stderr


async def test_where_ssh_cannot_be_started_the_workers_of_other_hosts_go_on(
    tmp_path, monkeypatch, caplog
):
    # A program in place of ssh, that says when its standard input has been closed.
    told, ended = tmp_path / "told", tmp_path / "ended"
    (tmp_path / "ssh").write_text(f"#!/bin/sh\ncat > '{told}'\necho > '{ended}'\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    # Longer than the limit for an argument.
    hosts = ssh.Hosts(Fleet(workers=2, environment={"A": "x"}), ["h", "x" * 200_000])
    stop = asyncio.Event()
    with caplog.at_level(logging.WARNING, "romul.launch"):
        running = asyncio.create_task(hosts.run(stop))
        async with asyncio.timeout(60):
            while not (caplog.messages and told.exists()):
                await asyncio.sleep(0.02)
        assert not ended.exists()
        stop.set()
        await running
    assert ended.exists()
    assert (tmp_path / "told").read_text() == "A=x\n.\n"
    assert all("Argument list too long: 'ssh'); restart in" in text for text in caplog.messages)


# -- Slurm ----------------------------------------------------------------------------------------

_SLURM = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
NodeName=localhost NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def slurm_cluster(tmp_path, monkeypatch):
    """A Slurm of one node for this test."""
    programs = ("munged", "slurmctld", "slurmd", "sbatch")
    path = f"{os.environ['PATH']}:/usr/sbin"
    if os.getuid() or any(shutil.which(program, path=path) is None for program in programs):
        pytest.skip("no slurmctld, slurmd and munged here, or not root")
    for name in ("state", "spool"):
        (tmp_path / name).mkdir()
    configuration = tmp_path / "slurm.conf"
    configuration.write_text(
        _SLURM.format(folder=tmp_path, user="root", controller=free_port(), node=free_port())
    )
    (tmp_path / "munge.key").write_bytes(os.urandom(1024))
    (tmp_path / "munge.key").chmod(0o400)
    monkeypatch.setenv("SLURM_CONF", str(configuration))
    files = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log"}
    options = [f"--{option}={tmp_path}/munge.{end}" for option, end in files.items()]
    commands = (
        ["munged", "-F", "--force", f"--seed-file={tmp_path}/munge.seed", *options],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", "localhost"],
    )
    daemons = []
    try:
        for command in commands:
            with (tmp_path / f"{command[0]}.out").open("wb") as output:
                daemons.append(
                    subprocess.Popen(
                        [shutil.which(command[0], path=path), *command[1:]],
                        stdout=output,
                        stderr=output,
                    )
                )
            if command[0] == "munged":
                wait_for((tmp_path / "munge.sock").exists)
        wait_for(lambda: b"idle" in asked("sinfo"), 60)
        yield tmp_path
    finally:
        asked("scancel", "--user=root", "--signal=KILL", "--full")
        asked("scancel", "--user=root")
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not asked("squeue", "--noheader"), 20)
        for daemon in reversed(daemons):
            daemon.kill()
            daemon.wait()


def asked(*command):
    return subprocess.run(command, capture_output=True, check=False).stdout


@pytest.mark.long(30)
def test_an_array_of_jobs_on_slurm_is_requeued_and_ends_in_order(system, slurm_cluster):
    submit(system)
    # A minute is Slurm's shortest time; the end is announced long before, as soon as both work.
    launched = subprocess.run(
        [
            *COLD,
            "launch",
            "--on=slurm",
            "--workers=2",
            "--time=2:00",
            f"--program={PROGRAM}",
            *OURS,
        ],
        env={**system.environment, "SLURM_CONF": os.environ["SLURM_CONF"], "ROMUL_GRACE_S": "60"},
        cwd=slurm_cluster,
        capture_output=True,
        text=True,
        check=False,
    )
    assert launched.returncode == 0, launched.stderr
    assert "2 workers" in launched.stdout
    number = launched.stdout.split()[1].rstrip(":")
    seen: set[str] = set()

    def both_were_seen():
        seen.update(w["worker"] for w in alive(system))
        return len(seen) == 2

    wait_for(both_were_seen, 60)
    some_results(system, 5)
    assert processes_with("slurm_script")
    # 90 s before the end of 120 s the workers are warned; each job goes back to the queue.
    wait_for(lambda: len(system.history(event="released")) >= 1 or not alive(system), 60)
    wait_for(lambda: asked("squeue", "--noheader", "--format=%T").split() == [b"PENDING"] * 2, 60)
    assert not alive(system)
    asked("scancel", number)
    log = next(slurm_cluster.glob("romul-worker-*_1.log")).read_text()
    assert "Traceback" not in log
    assert password(system) not in log


def test_the_batch_script_can_be_read_before_it_is_submitted(system):
    options = ["--on=slurm", "--workers=8", "--cpus=4", "--gpus=1", "--time=4:00:00"]
    shown = system.call(
        "launch", *options, "--dry-run", "--sbatch=--partition=spot", *OURS, ROMUL_GRACE_S="60"
    )
    assert shown.returncode == 0, shown.stderr
    assert "--grace is 60 s, but scancel kills a worker after Slurm's KillWait" in shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0] == "#!/bin/bash"
    for line in (
        "#SBATCH --array=1-8",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --gpus-per-task=1",
        "#SBATCH --time=4:00:00",
        "#SBATCH --partition=spot",
        "#SBATCH --requeue",
        "#SBATCH --signal=B:USR1@90",
    ):
        assert line in lines
    assert "redis" not in shown.stdout.replace("Redis", "")
    assert (
        subprocess.run(["bash", "-n"], input=shown.stdout, text=True, check=False).returncode == 0
    )


@pytest.mark.parametrize(
    "option",
    [
        "--sbatch=touch /tmp/x",
        "--sbatch=--partition=spot\ntouch /tmp/x",
        "--time=4:00:00\ntouch /tmp/x",
        "--time=4:00:00\r#SBATCH --wrap=x",
    ],
)
def test_no_value_begins_a_line_of_the_batch_script(system, option):
    wrong = system.call("launch", "--on=slurm", "--dry-run", option, *OURS)
    assert wrong.returncode == 2
    assert "is not an option for sbatch" in wrong.stderr
    assert wrong.stdout == ""


# -- Ray ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray_cluster():
    """A Ray cluster of one node for these tests: (address, environment with its token)."""
    pytest.importorskip("ray")
    program = shutil.which("ray", path=Path(sys.executable).parent)
    port = free_port()
    # A folder of its own, short enough for sockets: others on this machine must not find it.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    options = [f"--port={port}", "--num-cpus=3", "--node-ip-address=127.0.0.1", "--block"]
    options += [f"--temp-dir={folder}"]
    # Said, not left to whether this user's home holds a token.
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    head = subprocess.Popen(
        [program, "start", "--head", *options, "--include-dashboard=false"],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **token},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: listens(port), 60)
    yield f"127.0.0.1:{port}", token
    head.terminate()
    head.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.long(40)
def test_workers_as_tasks_of_a_ray_cluster(system, ray_cluster):
    address, token = ray_cluster
    submit(system)
    options = ["--on=ray", "--workers=2", f"--address={address}"]
    launched = system.start("launch", *options, *OURS, **token)
    wait_for(lambda: launched.poll() is not None or len(alive(system)) == 2, 90)
    assert launched.poll() is None, launched.log.read_text()
    some_results(system, 5)
    # Ray's own process goes, as with its node: Ray starts the task anew, elsewhere if need be.
    before = {worker["worker"] for worker in alive(system)}
    found = [int(w.split("-")[-2]) for w in sorted(before)]
    os.kill(parent_of(found[0]), signal.SIGKILL)
    wait_for(lambda: {worker["worker"] for worker in alive(system)} - before, 90)
    wait_for(lambda: len(alive(system)) == 2, 90)
    ends_in_order(launched)
    wait_for(lambda: not alive(system))


_ONE_THAT_CANNOT_START = """
import asyncio, logging, sys
from romul_actors.launch import Fleet
from romul_actors.launch.ray import RayWorkers, log

async def main(stop):
    log.addFilter(lambda record: stop.set() or True)
    await RayWorkers(Fleet(workers=1, arguments=["\\0"]), sys.argv[1]).run(stop)

asyncio.run(main(asyncio.Event()))
"""


@pytest.mark.long(20)
def test_why_a_worker_cannot_be_started_on_its_node_is_said(ray_cluster):
    address, token = ray_cluster
    done = subprocess.run(
        [sys.executable, "-c", _ONE_THAT_CANNOT_START, address],
        env={**os.environ, **token},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "a worker ended (ValueError: embedded null byte); restart in 5 s" in done.stderr


@pytest.mark.long(30)
def test_a_cluster_that_asks_for_a_token_is_a_clear_error(system, ray_cluster):
    address, _ = ray_cluster
    # Ray asks a cluster that refuses it twenty times, a second apart.
    quick = {"RAY_NUM_REDIS_GET_RETRIES": "2"}
    refused = system.call("launch", "--on=ray", f"--address={address}", *OURS, **quick)
    assert refused.returncode == 1
    assert "RAY_AUTH_TOKEN" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_cluster_that_is_not_there_is_a_clear_error(system):
    pytest.importorskip("ray")
    missing = system.call("launch", "--on=ray", f"--address=127.0.0.1:{free_port()}", *OURS)
    assert missing.returncode == 1
    assert "no Ray cluster" in missing.stderr
    assert "Traceback" not in missing.stderr
