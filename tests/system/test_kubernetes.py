"""The manifests are valid by Kubernetes' own schemas, and match the program."""

import asyncio
import itertools
import json
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from romul_actors.observe.health import RUNS_S
from romul_actors.store.redis import RedisStore
from tests.conftest import wait_for

FOLDER = Path(__file__).parents[2] / "docker" / "kubernetes"
VERSION = "1.31"
NETWORK = "NetworkPolicy"
METADATA = {
    "to": [{"ipBlock": {"cidr": "169.254.169.254/32"}}],
    "ports": [{"port": 80, "protocol": "TCP"}],
}
"""The rule that lets a worker reach a cloud's metadata service."""
FOREIGN = {"keda.sh/v1alpha1", "monitoring.coreos.com/v1"}
"""Kinds that come with operators; Kubernetes' own schemas do not know them."""
PACKAGES = {
    "keda.sh": "@kubernetes-models/keda",
    "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
}
SCHEMAS = {PACKAGES["keda.sh"]: "2.0.0", PACKAGES["monitoring.coreos.com"]: "6.0.0"}
CHECK = """
import { readFileSync } from "node:fs";
const kinds = await import(process.argv[2]);
try {
  new kinds[process.argv[3]](JSON.parse(readFileSync(0, "utf8"))).validate();
} catch (error) {
  console.log(error.message);
  process.exitCode = 1;
}
"""


def manifests():
    for file in sorted(FOLDER.rglob("*.yaml")):
        for i, found in enumerate(yaml.safe_load_all(file.read_text())):
            if found["kind"] not in ("Kustomization", "Component"):
                yield pytest.param(found, id=f"{file.stem}-{i}-{found['kind']}")


@pytest.mark.parametrize(
    "manifest", [p for p in manifests() if p.values[0]["apiVersion"] not in FOREIGN]
)
def test_a_manifest_is_valid(manifest):
    checked = kubernetes_validate.validate(manifest, VERSION, strict=True)
    assert checked.startswith(VERSION)


@pytest.fixture
def foreign_fault(tmp_path):
    """The fault of a manifest by the schemas of KEDA and the Prometheus operator; "" if valid."""
    if shutil.which("npm") is None:
        pytest.skip("no npm here, which the operators' schemas come with")
    folder = tmp_path
    (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": SCHEMAS}))
    installed = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"the operators' schemas cannot be installed: {installed.stderr[-300:]}")
    (folder / "check.mjs").write_text(CHECK)

    def fault(manifest):
        group, version = manifest["apiVersion"].split("/")
        module = f"{PACKAGES[group]}/{group}/{version}/{manifest['kind']}"
        done = subprocess.run(
            ["node", "check.mjs", module, manifest["kind"]],
            cwd=folder,
            input=json.dumps(manifest),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr
        return done.stdout

    return fault


def test_operators_manifests_are_valid(foreign_fault):
    """This is one test, so that only one process installs the schemas."""
    found = [p.values[0] for p in manifests() if p.values[0]["apiVersion"] in FOREIGN]
    assert {manifest["apiVersion"] for manifest in found} == FOREIGN
    for manifest in found:
        assert (manifest["metadata"]["name"], foreign_fault(manifest)) == (
            manifest["metadata"]["name"],
            "",
        )
        first = next(iter(manifest["spec"]))
        assert first in foreign_fault({**manifest, "spec": {**manifest["spec"], first: 3}})


def named(kind, name):
    return next(
        p.values[0]
        for p in manifests()
        if (p.values[0]["kind"], p.values[0]["metadata"]["name"]) == (kind, name)
    )


def test_kustomizations_name_every_manifest():
    files = sorted(FOLDER.rglob("kustomization.yaml"))
    assert len(files) > len(COMPONENTS)
    for file in files:
        found = yaml.safe_load(file.read_text())
        resources = found.get("resources", [])
        for resource in [*resources, *found.get("components", [])]:
            assert (file.parent / resource).exists(), (file, resource)
        here = {path.name for path in file.parent.glob("*.yaml")} - {"kustomization.yaml"}
        assert here <= set(resources)


COMPONENTS = ("gpu", "spot", "keda")


def rendered(folder):
    """All manifests of a kustomization, each valid, as `kubectl apply -k` sends them."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on this machine")
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = list(yaml.safe_load_all(done.stdout))
    for manifest in found:
        if manifest["apiVersion"] not in FOREIGN:
            kubernetes_validate.validate(manifest, VERSION, strict=True)
    return {(m["kind"], m["metadata"]["name"]): m for m in found}


def combined(folder, components, **more):
    """A user's own kustomization in `folder`: the base, and these components in this order."""
    # Kustomize takes no absolute paths.
    shutil.copytree(FOLDER, folder / "kubernetes", dirs_exist_ok=True)
    own = {
        "resources": ["kubernetes/base"],
        "components": [f"kubernetes/components/{name}" for name in components],
        **more,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(own))
    return rendered(folder)


def assert_holds(manifests, components):
    """Check that the workers have the settings of these components and of no others."""
    worker = manifests["Deployment", "romul-worker"]["spec"]
    pod = worker["template"]["spec"]
    container = pod["containers"][0]
    # Only KEDA sets that number.
    assert ("replicas" in worker) == ("keda" not in components)
    assert (("ScaledObject", "romul-worker") in manifests) == ("keda" in components)
    assert container["resources"]["limits"].get("nvidia.com/gpu") == (
        "1" if "gpu" in components else None
    )
    # Without a spare GPU none can be added before one has ended.
    surge = worker["strategy"]["rollingUpdate"]["maxSurge"]
    assert surge == (0 if "gpu" in components else "25%")
    names = {each["name"] for each in container["env"]}
    assert ("ROMUL_NOTICE" in names) == ("spot" in components)
    egress = manifests[NETWORK, "romul-worker"]["spec"]["egress"]
    assert (METADATA in egress) == ("spot" in components)
    assert ("affinity" in pod) == ("spot" in components)
    assert "affinity" not in manifests["Deployment", "romul-actor"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("overlay", ["base", *COMPONENTS, "monitoring"])
def test_kustomizations_render(overlay):
    manifests = rendered(FOLDER / overlay)
    if overlay != "monitoring":
        assert_holds(manifests, {overlay} - {"base"})


@pytest.mark.parametrize(
    "components",
    [some for n in (2, 3) for some in itertools.permutations(COMPONENTS, n)],
    ids=" ".join,
)
def test_the_base_takes_any_components_in_any_order(tmp_path, components):
    assert_holds(combined(tmp_path, components), set(components))


def test_on_spot_nodes_means_nodes_that_say_so_and_that_workers_tolerate():
    """Tolerations alone do not place a pod there; one cloud's label is enough."""
    pod = rendered(FOLDER / "spot")["Deployment", "romul-worker"]["spec"]["template"]["spec"]
    wanted = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    labels = {}
    for term in wanted["nodeSelectorTerms"]:
        [expression] = term["matchExpressions"]
        assert expression["operator"] == "In"
        labels[expression["key"]] = expression["values"]
    assert len(labels) == len(wanted["nodeSelectorTerms"])
    tolerated = {each["key"]: [each["value"]] for each in pod["tolerations"]}
    assert tolerated.items() <= labels.items()


def test_a_worker_starts_as_many_threads_as_it_has_cores_unless_told_otherwise(tmp_path):
    pod = named("Deployment", "romul-worker")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    [threads] = [each for each in container["env"] if each["name"] == "OMP_NUM_THREADS"]
    assert threads["valueFrom"] == {"resourceFieldRef": {"resource": "requests.cpu"}}
    assert "cpu" in container["resources"]["requests"]
    # The patch of docs/deploy.md.
    text = (FOLDER.parents[1] / "docs" / "deploy.md").read_text()
    [patch] = re.findall(r"^patches:\n(?:(?: .*)?\n)+?(?=```)", text, re.MULTILINE)
    found = combined(tmp_path, ["gpu"], **yaml.safe_load(patch))
    container = found["Deployment", "romul-worker"]["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "OMP_NUM_THREADS", "value": "4"} in container["env"]


def test_checkpoints_are_not_walked_through_at_each_start_of_a_pod():
    pod = named("Deployment", "romul-worker")["spec"]["template"]["spec"]
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def test_keda_reads_the_actors_metrics_from_any_namespace():
    """KEDA resolves names in its own namespace, so a service needs its full name."""
    service = named("Service", "romul-actor")
    trigger = named("ScaledObject", "romul-worker")["spec"]["triggers"][0]["metadata"]
    url = urlsplit(trigger["url"])
    name, _, namespace = (url.hostname or "").partition(".")
    assert (name, bool(namespace)) == (service["metadata"]["name"], True)
    assert url.port == service["spec"]["ports"][0]["port"]


def test_the_metadata_service_is_for_workers_on_spot_nodes_alone_and_sentinels_are_for_all():
    """That service also hands out a node's credentials, so only pods that need notices reach it."""
    policies = yaml.safe_load_all((FOLDER / "base" / "network.yaml").read_text())
    for policy in policies:
        ports = [each["port"] for rule in policy["spec"]["egress"] for each in rule["ports"]]
        assert {6379, 26379} <= set(ports)
        assert 80 not in ports
        assert not any("to" in rule for rule in policy["spec"]["egress"])
    spot = yaml.safe_load((FOLDER / "components" / "spot" / "kustomization.yaml").read_text())
    added = [
        (patch["target"]["kind"], patch["target"]["name"], change["value"])
        for patch in spot["patches"]
        for change in yaml.safe_load(patch["patch"])
        if not change["path"].endswith("/affinity")
    ]
    assert added == [
        ("Deployment", "romul-worker", {"name": "ROMUL_NOTICE", "value": "aws"}),
        (NETWORK, "romul-worker", METADATA),
    ]
    with_it = named(NETWORK, "romul-worker")
    with_it["spec"]["egress"].append(METADATA)
    kubernetes_validate.validate(with_it, VERSION, strict=True)


def test_a_worker_has_the_time_to_give_its_trial_back():
    pod = named("Deployment", "romul-worker")["spec"]["template"]["spec"]
    environment = {e["name"]: e.get("value") for e in pod["containers"][0]["env"]}
    assert pod["terminationGracePeriodSeconds"] > float(environment["ROMUL_GRACE_S"]) + 5


@pytest.mark.parametrize(("name", "port"), [("actor", 9100), ("worker", 9101)])
def test_only_a_hung_process_is_started_again_and_only_monitoring_reads_its_metrics(name, port):
    pod = named("Deployment", f"romul-{name}")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert f"--metrics-port={port}" in container["args"]
    assert container["ports"] == [{"name": "metrics", "containerPort": port}]
    live, ready = container["livenessProbe"], container["readinessProbe"]
    assert (live["httpGet"]["path"], ready["httpGet"]["path"]) == ("/healthz", "/readyz")
    assert live["httpGet"]["port"] == ready["httpGet"]["port"] == "metrics"
    # The answer may take that long.
    assert live["timeoutSeconds"] > RUNS_S
    policy = named("NetworkPolicy", f"romul-{name}")["spec"]
    [ingress] = policy["ingress"]
    assert ingress["ports"] == [{"port": port, "protocol": "TCP"}]
    labels = {"matchLabels": {"romul-metrics": "true"}}
    assert ingress["from"] == [{"namespaceSelector": labels}, {"podSelector": labels}]


@pytest.mark.parametrize("name", ["actor", "worker"])
def test_no_folder_of_a_pod_can_fill_its_node(name):
    pod = named("Deployment", f"romul-{name}")["spec"]["template"]["spec"]
    folders = {v["name"]: v["emptyDir"] for v in pod["volumes"] if "emptyDir" in v}
    assert all("sizeLimit" in folder for folder in folders.values())
    mounts = {m["mountPath"]: m["name"] for m in pod["containers"][0]["volumeMounts"]}
    assert set(folders) <= set(mounts.values())
    if name == "worker":
        assert folders[mounts["/dev/shm"]]["medium"] == "Memory"


@pytest.mark.parametrize("name", ["actor", "worker"])
def test_compose_asks_each_process_whether_it_is_healthy(name):
    file = FOLDER.parent / "compose.yaml"
    service = yaml.safe_load(file.read_text())["services"][name]
    port = service["command"][service["command"].index("--metrics-port") + 1]
    program, code = service["healthcheck"]["test"][1], service["healthcheck"]["test"][-1]
    assert program == "python3"
    assert f"http://127.0.0.1:{port}/healthz" in code
    status = {"/healthz": 200}

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status[self.path])
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        run = [sys.executable, "-c", code.replace(port, str(server.server_port))]
        assert subprocess.run(run, check=False).returncode == 0
        status["/healthz"] = 503
        assert subprocess.run(run, stderr=subprocess.DEVNULL, check=False).returncode == 1
        server.shutdown()


def test_the_compose_files_arguments_and_files_are_there(system):
    file = FOLDER.parent / "compose.yaml"
    for name, service in yaml.safe_load(file.read_text())["services"].items():
        for volume in service.get("volumes", []):
            assert not volume.startswith(".") or (file.parent / volume.split(":")[0]).exists()
        if "build" in service:
            build = service["build"]
            assert (file.parent / build["context"] / build["dockerfile"]).exists()
        if not service["image"].startswith("localhost/romul-"):
            continue
        command, *options = service.get("command", [name])
        output = system.call(command, "--help", COLUMNS="200").stdout
        for option in options:
            assert not option.startswith("--") or option in output, (name, option)
        for variable in service.get("environment", {}):
            # Passwords' files are read for any command.
            known = variable in output or variable.endswith(("_PASSWORD_FILE", "_NUM_THREADS"))
            assert known, (name, variable)


def test_the_arguments_are_the_programs_own(system):
    for name in ("actor", "worker"):
        container = named("Deployment", f"romul-{name}")["spec"]["template"]["spec"]["containers"][
            0
        ]
        command, *options = container["args"]
        output = system.call(command, "--help", COLUMNS="200").stdout
        for option in options:
            assert option.partition("=")[0] in output
        for entry in container.get("env", []):
            assert entry["name"] in output or entry["name"].endswith("_NUM_THREADS")
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_eight_leased_and_none_queued_still_want_eight(system):
    trigger = named("ScaledObject", "romul-worker")["spec"]["triggers"][0]["metadata"]
    system.submit(name="busy", population=8, steps=3, timeouts={"lease_s": 60.0})
    actor = system.actor("--metrics-port=0")
    wait_for(lambda: system.client.xlen("romul:{busy}:trials") == 8, 30)

    async def take():
        store = RedisStore(system.url)
        leases = [await store.lease(["busy"], f"w{n}", 0) for n in range(8)]
        await store.close()
        return leases

    assert all(asyncio.run(take()))

    def metric(name):
        port = re.search(r"metrics: http://127\.0\.0\.1:(\d+)", actor.log.read_text())
        with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = re.search(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return float(found[1])

    wait_for(lambda: metric("romul_trials_leased") == 8, 30)
    assert metric("romul_trials_queued") == 0
    assert metric(trigger["valueLocation"]) == 8 * float(trigger["targetValue"])
    system.call("stop", "busy")
    wait_for(lambda: metric(trigger["valueLocation"]) == 0, 30)
