"""Metrics of real processes, as Prometheus and Grafana read them."""

import asyncio
import json
import re
import urllib.request
from pathlib import Path

from romul_actors.core.history import TrialReleased
from romul_actors.observe.metrics import ActorMetrics, WorkerMetrics
from romul_actors.store.memory import MemoryStore
from tests.conftest import wait_for


def test_prometheus_sees_actor_and_worker(system):
    system.submit(name="m", population=4, steps=400, budget=4, constants={"seconds": 0.3})
    asked = system.call("dashboard", "--help")
    assert "--token" in asked.stdout
    actor = system.actor("--metrics-port=0")
    worker = system.worker("--metrics-port=0")

    def scrape(process):
        found = re.search(r"metrics: (http://127\.0\.0\.1:\d+/metrics)", process.log.read_text())
        if found is None:
            return ""
        with urllib.request.urlopen(found[1], timeout=10) as answer:
            return answer.read().decode()

    def value(process, name):
        found = re.search(
            rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", scrape(process), re.MULTILINE
        )
        return None if found is None else float(found[1])

    wait_for(lambda: (value(worker, "romul_worker_trials") or 0) >= 2, 30)
    # One worker trains, three trials wait: four would have something to do.
    wait_for(lambda: value(actor, "romul_workers_desired") == 4, 30)
    # Between two trials none is leased; the four stay four.
    wait_for(lambda: value(actor, "romul_trials_leased") == 1, 30)
    assert value(actor, "romul_workers_alive") == 1
    for process in (actor, worker):
        url = re.search(r"metrics: (http://\S+)/metrics", process.log.read_text())[1]
        for path in ("healthz", "readyz"):
            with urllib.request.urlopen(f"{url}/{path}", timeout=10) as answer:
                assert answer.read().startswith(b"the server answered")
    text = scrape(actor)
    assert re.search(r'romul_events_total{event="result",experiment="m"} [1-9]', text)
    port = re.search(r":(\d+)/metrics", actor.log.read_text())[1]
    taken = system.call("actor", f"--metrics-port={port}")
    assert taken.returncode != 0
    assert "Traceback" not in taken.stderr


def test_the_grafana_dashboard_asks_for_metrics_that_there_are(system):
    file = Path(__file__).parents[2] / "docker" / "grafana.json"
    asked = {
        name
        for panel in json.loads(file.read_text())["panels"]
        for target in panel["targets"]
        for name in re.findall(r"romul_\w+", target["expr"])
    }
    metrics = ActorMetrics()
    asyncio.run(metrics.refresh(MemoryStore()))
    lost = TrialReleased(at_ms=1, trial="0-0", attempt=1, worker="w", reason="preempted")
    metrics.count("e", [lost])
    worker = WorkerMetrics("w")
    there = {
        name
        for registry in (metrics.registry, worker.registry)
        for family in registry.collect()
        for name in [family.name, *(sample.name for sample in family.samples)]
    }
    assert asked <= there
