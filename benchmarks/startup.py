"""How long it takes until something can begin: `import romul`, and `romul --help`.

    python benchmarks/startup.py

Each is a Python process of its own, in turn with the others, so that what else the machine does
meets all of them; `import numpy` is the measure, and an interpreter that does nothing the floor.
Prints one JSON line with medians in seconds.
"""

import argparse
import json
import subprocess
import sys
import time
from statistics import median

ROUNDS = 11
COMMANDS = {
    "python_s": ["-c", "pass"],
    "import_romul_s": ["-c", "import romul"],
    "import_numpy_s": ["-c", "import numpy"],
    "help_s": ["-m", "romul_actors.cli", "--help"],
}


def seconds(arguments: list[str]) -> float:
    """How long a Python process with these arguments takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return time.perf_counter() - began


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="processes of each kind")
    rounds = parser.parse_args().rounds
    # A first process of each writes compiled files, and fills the disk's cache.
    for arguments in COMMANDS.values():
        seconds(arguments)
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            taken[name].append(seconds(arguments))
    medians = {name: round(median(values), 4) for name, values in taken.items()}
    print(json.dumps({"benchmark": "startup", "rounds": rounds, **medians}))


if __name__ == "__main__":
    main()
