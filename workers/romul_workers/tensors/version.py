"""Checks the version of torch: a worker's may be older than what `romul[torch]` installs."""

import re

from romul_actors.errors import TaskError

NEEDED = (2, 6)
"""In older versions `torch.load(weights_only=True)` lets a file run code (CVE-2025-32434)."""


def check_torch(version: str) -> None:
    """Refuse a version of torch that is older than `NEEDED`.

    Args:
        version: `torch.__version__`, such as 2.6.0+cu124.

    Raises:
        TaskError: it is too old.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is not None and tuple(map(int, found.groups())) < NEEDED:
        needed = ".".join(map(str, NEEDED))
        raise TaskError(
            f"torch {version} is too old: checkpoints need {needed} or later "
            "(pip install 'romul[torch]' where the workers run)"
        )
