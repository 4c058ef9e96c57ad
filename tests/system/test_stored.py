"""Data that older commits stored is read, shown, replayed and continued."""

import json
from pathlib import Path

import pytest
import redis

from romul_actors.core.history import to_json
from romul_sim.records.record import read_record
from tests.stored.listing import dump, load, write_folder

FOLDERS = sorted(path for path in (Path(__file__).parents[1] / "stored").iterdir() if path.is_dir())
COMMITS = [path.name for path in FOLDERS if (path / "finished.json").exists()]
PARTED: set[str] = {"ca05a5f"}
"""Commits since which an optimizer was changed on purpose; see tests/stored/README.md."""


@pytest.fixture
def raw(system):
    client = redis.Redis.from_url(system.url, protocol=2)
    yield client
    client.close()


class Stored:
    """Loads a stored search into the server, and its checkpoints into the test's folder."""

    def __init__(self, folder, system, client):
        self.folder, self._system, self._client = folder, system, client

    def __call__(self, name, **changes):
        there = self._system.folder / name
        search = json.loads(
            (self.folder / f"{name}.json").read_text().replace("/stored", str(there))
        )
        load(self._client, search["keys"])
        write_folder(there, search["files"])
        key = f"romul:{{{name}}}"
        spec = {**json.loads(self._client.hget(key, "spec")), **changes}
        self._client.hset(key, "spec", json.dumps(spec))
        return search


@pytest.fixture(params=COMMITS)
def stored(request, system, raw):
    return Stored(Path(__file__).parents[1] / "stored" / request.param, system, raw)


def told_by(system, *arguments):
    done = system.call(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def results(lines):
    return [line for line in lines if line["event"] == "result"]


@pytest.mark.parametrize("name", ["finished", "paused", "killed"])
def test_a_listing_is_the_whole_of_a_server(stored, system, raw, name):
    keys = stored(name)["keys"]
    # It ends by itself, perhaps while it is read.
    raw.delete(f"romul:{{{name}}}:tick")
    spec = keys[f"romul:{{{name}}}"]["value"]
    found = dump(raw)
    assert json.loads(found[f"romul:{{{name}}}"]["value"].pop("spec")) == json.loads(
        spec.pop("spec")
    )
    for row in (*keys.values(), *found.values()):
        row.pop("lives_ms", None)
    keys.pop(f"romul:{{{name}}}:tick", None)
    assert found == keys


def test_a_finished_search_is_shown_as_it_was(stored, system, tmp_path):
    stored("finished")
    exported = lines_of(stored.folder / "finished.history.jsonl")
    (row,) = system.as_json("status")
    assert (row["name"], row["status"], row["trials"]) == ("finished", "finished", 32)
    shown = system.as_json("show", "finished")
    assert [slot["status"] for slot in shown["slots"]] == ["done"] * 8
    lines = told_by(system, "history", "finished", "-n1000", "--json").splitlines()
    assert [json.loads(line) for line in lines] == exported
    assert len(results(exported)) == 32

    best = system.as_json("best", "finished", f"--copy-to={tmp_path / 'best'}")
    least = min(results(exported), key=lambda line: line["value"])
    assert (best["trial"], best["checkpoint"]) == (least["trial"], least["checkpoint"])
    x, _, updates = json.loads((tmp_path / "best" / "state.json").read_text())
    assert (abs(x), updates) == (least["value"], 16)

    tree = told_by(system, "lineage", "finished", str(least["slot"])).splitlines()
    (here,) = [branch for branch in tree if "<- here" in branch]
    assert f"slot {least['slot']}: steps" in here
    decided = next(line for line in exported if line.get("why", {}).get("rule") == "explored")
    explained = told_by(system, "explain", "finished", decided["trial"])
    assert str(decided["why"]["copied"]) in explained
    # Reasons that only rules of an older version gave are still shown.
    paced = next(line for line in exported if "bar" in line.get("why", {}))
    explained = " ".join(told_by(system, "explain", "finished", paced["trial"]).split())
    assert f"no worse than {paced['why']['bar']:.4g}, the limit for giving up" in explained
    told_by(system, "export", "finished", f"--to={tmp_path / 'again.jsonl'}")
    assert lines_of(tmp_path / "again.jsonl") == exported


def test_a_record_is_decided_again(stored, system):
    file = stored.folder / "finished.record.jsonl"
    lines = [to_json(line) for line in read_record(file).lines]
    assert lines == lines_of(stored.folder / "finished.history.jsonl")
    done = system.call("replay", str(file), "--verify")
    if stored.folder.name in PARTED:
        assert (done.returncode, "the decisions differ" in done.stdout) == (1, True)
    else:
        assert done.returncode == 0, done.stdout


def gone_on(system, name, before):
    """Check that a search has continued to its end from its stored state."""
    lines = system.history(name)
    assert lines[: len(before)] == before
    trials = [line["trial"] for line in results(lines)]
    assert sorted(trials) == sorted(f"{slot}-{step}" for slot in range(8) for step in range(4))
    assert lines[-1]["event"] == "finished"
    return lines


def test_a_killed_search_goes_on_to_its_end(stored, system):
    stored("killed", constants={"seconds": 0.05})
    before = system.history("killed")
    held = system.leases("killed")
    assert len(held) == 2
    system.actor()
    system.start("worker", "--allow=romul_workers.tasks.toys")
    system.wait_for_status("finished", "killed", 90)
    lines = gone_on(system, "killed", before)
    failed = [line for line in lines[len(before) :] if line["event"] == "failed"]
    assert {line["reason"] for line in failed} == {"lost"}
    assert {(line["worker"], line["attempt"]) for line in failed} >= {
        (worker, 1) for worker in held.values()
    }


GONE = {"name": "romul", "replaced_first": 0.5, "patience": 2.0}


def warned_of(said):
    said = " ".join(said.split())
    return "replaced_first = 0.5 no longer counts" in said and "patience = 2.0 no longer" in said


def test_a_paused_search_goes_on_and_options_that_are_no_more_are_named(stored, system, tmp_path):
    stored("paused", optimizer=GONE, constants={"seconds": 0.05})
    before = system.history("paused")
    slots = [system.slot(index, "paused") for index in range(8)]
    assert sum(slot["partial"] != "" for slot in slots) == 2
    (row,) = system.as_json("status")
    assert (row["status"], row["trials"]) == ("paused", len(results(before)))
    server = f"--redis={system.url}"
    for command in ("status", "show paused", "doctor"):
        assert warned_of(told_by(system, *command.split(), server))
    told_by(system, "export", "paused", f"--to={tmp_path / 'trials.csv'}", server)
    assert "paused: " in told_by(system, "collect", "paused", "--dry-run", server)
    local = (f"--runs={system.folder}", "--workers=1", server)
    done = system.call("run", "--resume=paused", *local)
    assert done.returncode == 0, done.stderr
    assert warned_of(done.stderr)
    lines = gone_on(system, "paused", before)
    # The task refuses a checkpoint of another length. On a busy machine a lease may end.
    failed = [line for line in lines[len(before) :] if line["event"] == "failed"]
    assert {line["reason"] for line in failed} <= {"lost"}
    assert not warned_of(told_by(system, "status", server))


@pytest.mark.parametrize("option", ["patience", "replaced_first"])
def test_a_file_that_sets_an_option_that_is_no_more_is_refused_before_anything_changes(
    stored, system, raw, option
):
    stored("paused", optimizer=GONE)
    before = dump(raw)
    spec = json.loads(raw.hget("romul:{paused}", "spec"))
    file = declaring(system.folder, spec, options={option: 0.5})
    done = system.call(
        "run", str(file), "--resume=paused", f"--runs={system.folder}", f"--redis={system.url}"
    )
    assert done.returncode != 0
    assert f"optimizer 'romul' has no option '{option}'" in " ".join(done.stderr.split())
    after = dump(raw)
    for rows in (before, after):
        for row in rows.values():
            row.pop("lives_ms", None)
    assert after == before


def declaring(folder, spec, options):
    """A declaration like the stored one, except for the optimizer's options."""
    kept = {**spec, "optimizer": {"name": "romul", "options": options}}
    file = folder / "declaring.py"
    text = f"experiment = Experiment.model_validate_json({json.dumps(kept)!r})"
    file.write_text(f"from romul_actors.protocol.experiment import Experiment\n{text}\n")
    return file


def test_a_file_that_no_longer_sets_them_resumes_it(stored, system, raw):
    stored("paused", optimizer=GONE, constants={"seconds": 0.0})
    before = system.history("paused")
    spec = json.loads(raw.hget("romul:{paused}", "spec"))
    done = system.call(
        "run",
        str(declaring(system.folder, spec, options={})),
        "--resume=paused",
        f"--runs={system.folder}",
        f"--redis={system.url}",
        "--workers=1",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "finished"
    gone_on(system, "paused", before)
