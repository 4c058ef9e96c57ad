"""All commands, in the order that a newcomer meets them: panel, name, first line of help.

The lines are those of the commands' own docstrings; they stand here as well, so that they can be
listed without the modules.
"""

from collections.abc import Mapping, Sequence

COMMANDS: Mapping[str, Mapping[str, str]] = {
    "On one machine": {
        "demo": "Train a population on handwritten digits, with random search beside it.",
        "run": "Run an experiment on this machine: server, actor and workers in one go.",
        "sim": "Simulate a population on machines that come and go.",
        "lab": "Compare optimizers on toy problems, over many seeds, on all cores.",
        "bench": "Judge optimizers by test losses on small real training problems, on all cores.",
        "chaos": (
            "Simulate searches on machines where everything breaks, and check every invariant."
        ),
        "drill": (
            "Run a search while workers, actors, server and broker are killed, frozen and "
            "restarted."
        ),
        "check": (
            "Try a task out: does it restore, seed, apply hyperparameters and stop as it should?"
        ),
    },
    "Separate processes": {
        "actor": "Run a decision actor. A second one takes over when the first is gone.",
        "worker": "Run a worker: it trains whatever trials there are, until it is stopped.",
        "launch": "Start workers, and keep them running until Ctrl-C; Slurm keeps its own.",
        "serve": "Start the embedded server of a local run that has ended, to look into it.",
    },
    "Experiments": {
        "submit": "Put an experiment into the store, for any actor and workers.",
        "status": "List all experiments with their progress.",
        "show": "Show an experiment's population, or one slot in full.",
        "best": "Show the best trial so far, and copy its checkpoint on request.",
        "pause": "Hand out no more trials; those in training end, and their results are kept.",
        "resume": "Go on with a paused experiment, or try a failed one again.",
        "stop": "End an experiment; what it found stays, and `romul extend` goes on with it.",
        "pin": (
            "Hold a slot: it goes on with its hyperparameters and weights, whatever the others do."
        ),
        "bounds": (
            "Search a hyperparameter between other bounds; places outside move to the nearest "
            "bound."
        ),
        "extend": "Go on with a search to more steps: a running, finished or stopped one.",
        "change": (
            "Change the number of slots, or constants of the optimizer, of a search that goes on."
        ),
        "remove": "Remove an experiment from the store; its checkpoints stay where they are.",
    },
    "Inspect": {
        "top": (
            "Show a running experiment live: workers, slots, queues, alarms. One round trip a "
            "refresh."
        ),
        "workers": (
            "List an experiment's workers: what they do, and the age of their last heartbeat."
        ),
        "history": "Show what happened and was decided, operators' actions too, with dates in UTC.",
        "lineage": "Show the tree of copies that a slot belongs to.",
        "explain": (
            "Say why a trial was decided as it was: what was copied, mutated, drawn, and from "
            "where."
        ),
        "logs": (
            "Show what the task printed during a trial's attempts: the end of it, of the latest "
            "2,000."
        ),
        "waste": "Show where the machines' time went: useful, and lost by cause and by worker.",
        "doctor": (
            "Examine server, broker, experiments and checkpoint stores; a remedy for each fault."
        ),
        "dashboard": (
            "Show populations in a browser: live, with lineage, schedules, workers and actions."
        ),
    },
    "Afterwards": {
        "report": "Write a finished or running search as one HTML page that needs nothing else.",
        "export": (
            "Write all trials to a file: hyperparameters as h.NAME, metrics as m.NAME, never "
            "rescaled."
        ),
        "record": (
            "Record a run, with its machines, until it ends: for `romul replay` and `romul sim "
            "--trace`."
        ),
        "replay": (
            "Decide a recorded run again: the same, or with other settings, to see where they part."
        ),
        "schedule": "The winner's hyperparameters, to train with again.",
    },
    "Maintenance": {
        "failures": "Show why attempts ended, and where in the search space.",
        "collect": (
            "Remove checkpoints that no decision can ask for: what dead workers left behind."
        ),
        "control": "Have a worker drain, stop, or log at another level. Needs a broker.",
        "acl": "Make a user of the server for each role, with a password and the rights it needs.",
        "dead": "Dead letters: messages that could not be read.",
    },
}
"""By panel and by name: the first line."""

MODULES: Mapping[str, Sequence[str]] = {
    "experiments": (
        "submit",
        "status",
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
"""Modules in `romul_actors.cli` with other commands than the one that they are named by."""

GROUPS = ("schedule", "dead")
"""Those that have commands of their own."""

ALIASES: Mapping[str, str] = {"ls": "status", "rm": "remove"}
"""Short names that are not listed."""


def module_of(name: str) -> str:
    """The module in `romul_actors.cli` that has a command."""
    return next((module for module, names in MODULES.items() if name in names), name)
