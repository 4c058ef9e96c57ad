"""JAX, with optax and flax: `romul run examples/frameworks/with_jax.py`."""

import jax
import jax.numpy as jnp
import optax
from flax import linen, serialization
from sklearn.datasets import load_digits

from romul_actors.protocol.experiment import Experiment, FloatSpec

experiment = Experiment(
    name="jax",
    task="with_jax",
    metric="val_loss",
    population=8,
    steps=15,
    budget=40,
    budget_unit="update",
    space={
        "learning_rate": FloatSpec(type="float", min=1e-5, max=0.1, scale="log"),
        "weight_decay": FloatSpec(type="float", min=1e-4, max=1.0, scale="log"),
    },
)
network = linen.Sequential([linen.Dense(32), linen.relu, linen.Dense(10)])
# The hyperparameters are part of the optimizer's state, so that a new value needs no recompilation.
optimizer = optax.inject_hyperparams(optax.adamw)(learning_rate=0.0, weight_decay=0.0)


def loss(weights, x, y):
    logits = network.apply(weights, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@jax.jit
def update(weights, memory, x, y):
    gradients = jax.grad(loss)(weights, x, y)
    changes, memory = optimizer.update(gradients, memory, weights)
    return optax.apply_updates(weights, changes), memory


def setup(context):
    x, y = (jnp.asarray(part) for part in load_digits(return_X_y=True))
    return x[:1200] / 16, y[:1200], x[1200:] / 16, y[1200:]


def train(trial):
    x, y, x_val, y_val = trial.state
    key = jax.random.key(trial.seed)
    weights = network.init(key, x)
    state = (weights, optimizer.init(weights))
    if trial.parent is not None:
        saved = (trial.parent / "state.msgpack").read_bytes()
        state = serialization.from_bytes(state, saved)
    weights, memory = state
    given = {name: jnp.float32(value) for name, value in trial.hyperparameters.items()}
    memory = optax.tree.set(memory, **given)
    for at in range(int(trial.start), int(trial.stop)):
        batch = jax.random.randint(jax.random.fold_in(key, at), (32,), 0, len(x))
        weights, memory = update(weights, memory, x[batch], y[batch])
        if at + 1 < trial.stop and trial.should_stop:
            break
    saved = serialization.to_bytes((weights, memory))
    (trial.checkpoint / "state.msgpack").write_bytes(saved)
    if at + 1 < trial.stop:
        return trial.pause(at + 1)
    lr = memory.hyperparams["learning_rate"]
    return {"val_loss": float(loss(weights, x_val, y_val)), "lr": float(lr)}
