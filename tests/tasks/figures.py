"""A task that also returns the figures that its constant names."""

from typing import Any

import numpy as np


def train(trial):
    (trial.checkpoint / "state").write_text("")
    odd = {
        "text": "hello",
        "list": [1, 2],
        "none": None,
        "nan": float("nan"),
        "endless": np.float64("inf"),
        "array": np.zeros(3),
        "huge": 10**400,
        "\udcff": 1.0,
        "complex": 1j,
        "long" + 100 * "x": 1.0,
    }
    plain = {"true": True, "np": np.float32(0.5), "np_true": np.bool_(1), "0-d": np.array(3)}
    many = {f"figure {n}": n for n in range(300)}
    sets: dict[str, dict[str, Any]] = {"odd": odd, "plain": plain, "many": many}
    beside = sets[trial.constants["beside"]]
    return {"loss": np.float32(0.25), **beside}
