"""The recipes of docs/frameworks.md continue from the parent with the trial's own values."""

import importlib.util
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import romul as product
from romul_actors.core.events import TrialMessage
from romul_workers.child.trainer import ChildTrainer
from tests.conftest import romul
from tests.trials import declare

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "frameworks"

TORCH = """
from pathlib import Path
from romul_workers.torch_support import load
optimizer = load(Path())["optimizer"]
rate, updates = optimizer["param_groups"][0]["lr"], optimizer["state"][0]["step"]
"""
SAVED = {
    "lightning": TORCH,
    "ddp": TORCH,
    "transformers": TORCH,
    "jax": """
from pathlib import Path
from flax.serialization import msgpack_restore
memory = msgpack_restore(Path("state.msgpack").read_bytes())["1"]
rate, updates = memory["hyperparams"]["learning_rate"], memory["inner_state"]["0"]["count"]
""",
    "keras": """
import os
os.environ["KERAS_BACKEND"] = "torch"
import keras
optimizer = keras.models.load_model("model.keras").optimizer
rate, updates = optimizer.learning_rate, optimizer.iterations
""",
    "sklearn": """
import joblib
model = joblib.load("model.joblib")
rate, updates = model.eta0, model.t_ - 1
""",
    "xgboost": """
import xgboost
rate, updates = float("nan"), xgboost.Booster(model_file="model.ubj").num_boosted_rounds()
""",
    "lightgbm": """
import lightgbm
trees = lightgbm.Booster(model_file="model.txt").dump_model()["tree_info"]
rate, updates = trees[-1]["shrinkage"], len(trees) / 10
""",
}
"""Programs that read the optimizer of a checkpoint, by framework."""

RATES = {"lightning": "lr", "ddp": "lr", "sklearn": "eta0", "xgboost": "eta"}
OTHERS = {
    "sklearn": {"alpha": 1e-4},
    "xgboost": {"subsample": 0.8, "max_depth": 3},
    "lightgbm": {"feature_fraction": 0.8, "num_leaves": 8},
}

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.long(20),
    pytest.mark.parametrize(
        "framework",
        [
            pytest.param(
                name,
                marks=pytest.mark.skipif(
                    # Not imported: some start threads, which this process must not fork with.
                    importlib.util.find_spec({"ddp": "torch"}.get(name, name)) is None,
                    reason=f"{name} is not installed",
                ),
            )
            for name in SAVED
        ],
    ),
]


def saved(framework, checkpoints):
    """Learning rate and number of updates in each checkpoint's optimizer."""
    read = textwrap.indent(SAVED[framework], "    ")
    code = f"import os, sys\nfor folder in sys.argv[1:]:\n    os.chdir(folder)\n{read}"
    code += "    print(float(rate), float(updates))"
    done = subprocess.run(
        [sys.executable, "-c", code, *checkpoints], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()[-len(checkpoints) :]
    return [tuple(map(float, line.split())) for line in lines]


def message(framework, step, rate, parent=None):
    others = OTHERS.get(framework, {"weight_decay": 0.01})
    return TrialMessage(
        id=f"0-{step}",
        slot=0,
        step=step,
        attempt=1 if rate else 2,
        hyperparameters={RATES.get(framework, "learning_rate"): rate or 1e-12, **others},
        parent=parent,
        start=2.0 * step,
        stop=2.0 * (step + 1),
        seed=7,
    )


@pytest.fixture
async def trainer(tmp_path):
    made = ChildTrainer(tmp_path / "scratch", [EXAMPLES])
    yield made
    await made.close()


async def test_a_trial_goes_on_under_its_own_learning_rate(framework, trainer, tmp_path):
    metric = "eval_loss" if framework == "transformers" else "val_loss"
    place = str(tmp_path / "checkpoints")
    experiment = declare(task=f"with_{framework}", metric=metric, steps=2, checkpoints=place)
    parent = await trainer.train(experiment, message(framework, 0, 0.02))
    on = await trainer.train(experiment, message(framework, 1, 0.005, parent.checkpoint))
    still = await trainer.train(experiment, message(framework, 1, 0, parent.checkpoint))
    # The parent's weights: under a rate of nearly nothing they stay.
    assert still.value == pytest.approx(parent.value, rel=1e-5)
    assert on.value != pytest.approx(parent.value, rel=1e-5)
    folders = [tmp_path / "checkpoints" / ending.checkpoint for ending in (parent, on)]
    (first_rate, first), (rate, both) = saved(framework, folders)
    # The parent's optimizer, with one value changed.
    assert both == 2 * first > 0
    if framework != "xgboost":
        assert (first_rate, rate) == pytest.approx((0.02, 0.005))
    if "lr" in on.metrics:
        assert on.metrics["lr"] == pytest.approx(0.005)


def test_a_population_gets_better_from_step_to_step(framework, tmp_path):
    text = (EXAMPLES / f"with_{framework}.py").read_text()
    file = tmp_path / f"with_{framework}.py"
    file.write_text(re.sub("steps=.*,", "steps=3,", text).replace("population=8", "population=4"))
    done = romul("run", str(file), f"--runs={tmp_path}", "--workers=1")
    assert done.returncode == 0, done.stderr
    trials = product.open(framework, runs=tmp_path).trials.values()
    by_step = [[t.value for t in trials if t.step == step] for step in range(3)]
    assert [len(values) for values in by_step] == [4, 4, 4]
    assert min(by_step[-1]) < min(by_step[0])


def test_romul_check_finds_nothing(framework):
    done = romul("check", str(EXAMPLES / f"with_{framework}.py"), "--grace=60", "--json")
    checks = json.loads(done.stdout)
    assert {check["level"] for check in checks} == {"ok"}, checks
    assert "paused at" in checks[-1]["found"]
