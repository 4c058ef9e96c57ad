"""Which torch checkpoints need: a worker's may be older than what `romul[torch]` installs."""

import re

from romul_actors.errors import TaskError

NEEDED = (2, 6)
"""Before, `torch.load(weights_only=True)` let a file run code (CVE-2025-32434)."""


def check_torch(version: str) -> None:
    """Refuse an older torch.

    Args:
        version: as torch gives it, such as 2.6.0+cu124.

    Raises:
        TaskError: it is older than `NEEDED`.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is not None and tuple(map(int, found.groups())) < NEEDED:
        needed = ".".join(map(str, NEEDED))
        raise TaskError(
            f"torch {version} is too old: checkpoints need {needed} or later "
            "(pip install 'romul[torch]' where the workers run)"
        )
