"""`romul schedule`, as a user runs it."""

import json


def test_the_winners_schedule_is_trained_again(toy, tmp_path):
    file = tmp_path / "schedule.json"
    done = toy.call("schedule", "export", "toy", f"--to={file}")
    assert done.returncode == 0, done.stderr
    output = json.loads(file.read_text())
    best = json.loads(toy.meta("toy")["best"])
    assert output["stretches"][-1]["trial"] == best["trial"]
    assert output["stretches"][-1]["hyperparameters"] == best["hyperparameters"]
    trained = toy.call("schedule", "train", str(file), "--json", f"--to={tmp_path / 'model'}")
    result = json.loads(trained.stdout)
    # The toy is deterministic: trained in one piece, the model is the winner to the last bit.
    assert (result["value"], result["apart"]) == (best["loss"], 0.0)
    assert (tmp_path / "model" / "state.json").exists()

    output["task"] = "os:system"
    file.write_text(json.dumps(output))
    refused = toy.call("schedule", "train", str(file))
    assert "'os' is not allowed" in refused.stderr
    file.write_text('{"version": 1, "stretches": 3}')
    wrong = toy.call("schedule", "train", str(file)).stderr
    assert "not a schedule" in " ".join(wrong.split())
