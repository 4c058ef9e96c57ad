"""All commands, in the order in which a newcomer needs them: panel, name, first line of help.

The lines repeat the first lines of the commands' docstrings, so that the commands can be listed
without importing their modules.
"""

from collections.abc import Mapping, Sequence

COMMANDS: Mapping[str, Mapping[str, str]] = {
    "On one machine": {
        "demo": "Train a population on handwritten digits, and compare it with random search.",
        "run": "Run an experiment on this machine, with its own server, actor and workers.",
        "sim": "Simulate a population on machines that come and go.",
        "lab": "Compare optimizers on toy problems, over many seeds, on all cores.",
        "bench": (
            "Compare optimizers by their test losses on small real training problems, on all cores."
        ),
        "chaos": "Simulate searches under random faults, and check every invariant.",
        "drill": (
            "Run a search while workers, actors, server and broker are killed, frozen and "
            "restarted."
        ),
        "check": (
            "Check that a task restores, seeds, applies hyperparameters and stops as it should."
        ),
    },
    "Separate processes": {
        "actor": "Run a decision actor. A second actor takes over if the first one fails.",
        "worker": "Run a worker, which trains trials until it is stopped.",
        "launch": "Start workers and keep them running until Ctrl-C, or submit them to Slurm.",
        "serve": "Start the embedded server of a local run that has ended, to inspect the run.",
    },
    "Experiments": {
        "submit": "Submit an experiment to a server, for its actors and workers.",
        "status": "List all experiments with their progress.",
        "show": "Show an experiment's population, or one slot in detail.",
        "best": "Show the best trial so far, and optionally copy its checkpoint.",
        "pause": "Pause an experiment. Trials in training finish, and their results are kept.",
        "resume": "Resume a paused experiment, or retry a failed one.",
        "stop": "Stop an experiment. Its results are kept, and `romul extend` can continue it.",
        "pin": (
            "Pin a slot: it continues with its own hyperparameters and weights, and copies no "
            "other."
        ),
        "bounds": (
            "Change the bounds of a hyperparameter. Values outside move to the nearest bound."
        ),
        "extend": "Continue a running, finished or stopped search for more steps.",
        "change": (
            "Change the slots of a search that has not ended, or constants of its optimizer."
        ),
        "remove": "Remove an experiment from the server. Its checkpoints stay where they are.",
    },
    "Inspect": {
        "top": "Show a running experiment live: workers, slots, queues and alarms.",
        "workers": (
            "List an experiment's workers, their states, and the age of their last heartbeats."
        ),
        "history": (
            "Show the history: results, decisions and operators' actions, with times in UTC."
        ),
        "lineage": "Show the tree of copies that a slot belongs to.",
        "explain": "Explain why a trial was decided as it was: what was copied, mutated and drawn.",
        "logs": "Show the end of what the task printed in each attempt of a trial.",
        "waste": (
            "Show how much machine time was useful, and how much was lost, by cause and by worker."
        ),
        "doctor": (
            "Check server, broker, experiments and checkpoint stores, and suggest a remedy for "
            "each fault."
        ),
        "dashboard": (
            "Serve a live dashboard of populations, lineage, schedules and workers to a browser."
        ),
    },
    "Results": {
        "report": "Write a self-contained HTML report of a finished or running search.",
        "export": "Export all trials to a file, to TensorBoard or to MLflow.",
        "record": (
            "Record a run and its machines until it ends, for `romul replay` and `romul sim "
            "--trace`."
        ),
        "replay": (
            "Replay a recorded run's decisions: verify them, or compare them under other settings."
        ),
        "schedule": "Export the winner's hyperparameter schedule, or train a model along it.",
    },
    "Maintenance": {
        "failures": (
            "Show why attempts failed or were lost, and in which parts of the search space."
        ),
        "collect": (
            "Remove checkpoints that are no longer needed, such as those that dead workers left "
            "behind."
        ),
        "control": "Make a worker drain, stop, or change its log level. This requires a broker.",
        "acl": "Create a server user for each role, with a password and the permissions it needs.",
        "dead": "List, retry or drop dead letters: messages that could not be read.",
    },
}
"""By panel and by name: the first line."""

MODULES: Mapping[str, Sequence[str]] = {
    "experiments": (
        "submit",
        "show",
        "best",
        "pause",
        "resume",
        "stop",
        "pin",
        "bounds",
        "change",
        "remove",
    ),
    "workers": ("workers", "control"),
    "trials": ("lineage", "explain", "logs"),
    "attempts": ("waste", "failures"),
    "record": ("record", "replay"),
    "checkpoints": ("collect",),
    "dead_letters": ("dead",),
}
"""Modules with commands that have other names than the module."""

GROUPS = ("schedule", "dead")
"""Commands that have subcommands."""

ALIASES: Mapping[str, str] = {"ls": "status", "rm": "remove"}
"""Short names that are not listed."""


def module_of(name: str) -> str:
    """The module of this package that has a command."""
    return next((module for module, names in MODULES.items() if name in names), name)
