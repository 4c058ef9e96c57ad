"""Names of checkpoints, as workers make them and reports carry them: SLOT-STEP-ATTEMPT-TAIL.

A report comes over the network, and its name becomes a part of a path: no other form is taken.
"""

import re

# Before there was a tail, a name was made of the three numbers alone.
_NAME = re.compile(r"\d+-\d+-\d+(-[0-9a-f]{1,16})?")


def is_name(name: str) -> bool:
    """Whether a checkpoint may have such a name."""
    return _NAME.fullmatch(name) is not None


def misnamed(name: str) -> str:
    """What is wrong with a name that no checkpoint may have, in words."""
    return f"checkpoint {name!r:.200}: not a name of the form SLOT-STEP-ATTEMPT-TAIL"
