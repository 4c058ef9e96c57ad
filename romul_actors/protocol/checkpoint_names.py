"""The names of checkpoints in reports: SLOT-STEP-ATTEMPT-TAIL.

A report comes from the network and the name becomes part of a path, so no other form is accepted.
"""

import re

# Names from older versions have no tail.
_NAME = re.compile(r"\d+-\d+-\d+(-[0-9a-f]{1,16})?")


def is_name(name: str) -> bool:
    """Whether a text is a valid name of a checkpoint."""
    return _NAME.fullmatch(name) is not None


def misnamed(name: str) -> str:
    """The error message for an invalid name."""
    return f"checkpoint {name!r:.200}: not a name of the form SLOT-STEP-ATTEMPT-TAIL"
