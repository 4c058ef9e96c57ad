"""All commands, in the order that a newcomer meets them: panel, name, module, first line of help.

The lines are those of the commands' own docstrings; they stand here as well, so that they can be
listed without the modules.
"""

from collections.abc import Mapping

COMMANDS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "On one machine": {
        "demo": ("demo", "Train a population on handwritten digits, with random search beside it."),
        "run": ("run", "Run an experiment on this machine: server, actor and workers in one go."),
        "sim": ("sim", "Simulate a population on machines that come and go."),
        "lab": ("lab", "Compare optimizers on toy problems, over many seeds, on all cores."),
        "bench": (
            "bench",
            "Judge optimizers by test losses on small real training problems, on all cores.",
        ),
        "chaos": (
            "chaos",
            "Simulate searches on machines where everything breaks, and check every invariant.",
        ),
        "drill": (
            "drill",
            (
                "Run a search while workers, actors, server and broker are killed, frozen and "
                "restarted."
            ),
        ),
        "check": (
            "check",
            "Try a task out: does it restore, seed, apply hyperparameters and stop as it should?",
        ),
    },
    "Separate processes": {
        "actor": ("actor", "Run a decision actor. A second one takes over when the first is gone."),
        "worker": (
            "worker",
            "Run a worker: it trains whatever trials there are, until it is stopped.",
        ),
        "launch": (
            "launch",
            "Start workers, and keep them running until Ctrl-C; Slurm keeps its own.",
        ),
        "serve": (
            "serve",
            "Start the embedded server of a local run that has ended, to look into it.",
        ),
    },
    "Experiments": {
        "submit": ("experiments", "Put an experiment into the store, for any actor and workers."),
        "status": ("experiments", "List all experiments with their progress."),
        "show": ("experiments", "Show an experiment's population, or one slot in full."),
        "best": ("experiments", "Show the best trial so far, and copy its checkpoint on request."),
        "pause": (
            "experiments",
            "Hand out no more trials; those in training end, and their results are kept.",
        ),
        "resume": ("experiments", "Go on with a paused experiment, or try a failed one again."),
        "stop": (
            "experiments",
            "End an experiment; what it found stays, and `romul extend` goes on with it.",
        ),
        "pin": (
            "experiments",
            "Hold a slot: it goes on with its hyperparameters and weights, whatever the others do.",
        ),
        "bounds": (
            "experiments",
            (
                "Search a hyperparameter between other bounds; places outside move to the "
                "nearest bound."
            ),
        ),
        "extend": (
            "extend",
            "Go on with a search to more steps: a running, finished or stopped one.",
        ),
        "change": (
            "experiments",
            (
                "Change the number of slots, or constants of the optimizer, of a search that goes "
                "on."
            ),
        ),
        "remove": (
            "experiments",
            "Remove an experiment from the store; its checkpoints stay where they are.",
        ),
    },
    "Inspect": {
        "top": (
            "top",
            (
                "Show a running experiment live: workers, slots, queues, alarms. One round trip "
                "a refresh."
            ),
        ),
        "workers": (
            "workers",
            "List an experiment's workers: what they do, and the age of their last heartbeat.",
        ),
        "history": (
            "history",
            "Show what happened and what was decided; operators' actions are among it.",
        ),
        "lineage": ("trials", "Show the tree of copies that a slot belongs to."),
        "explain": (
            "trials",
            (
                "Say why a trial was decided as it was: what was copied, mutated, drawn, and "
                "from where."
            ),
        ),
        "logs": (
            "trials",
            (
                "Show what the task printed during a trial's attempts: the end of it, of the "
                "latest 2,000."
            ),
        ),
        "waste": (
            "attempts",
            "Show where the machines' time went: useful, and lost by cause and by worker.",
        ),
        "doctor": (
            "doctor",
            "Examine server, broker, experiments and checkpoint stores; a remedy for each fault.",
        ),
        "dashboard": (
            "dashboard",
            "Show populations in a browser: live, with lineage, schedules, workers and actions.",
        ),
    },
    "Afterwards": {
        "report": (
            "report",
            "Write a finished or running search as one HTML page that needs nothing else.",
        ),
        "export": (
            "export",
            (
                "Write all trials to a file: hyperparameters as h.NAME, metrics as m.NAME, never "
                "rescaled."
            ),
        ),
        "record": (
            "record",
            (
                "Record a run, with its machines, until it ends: for `romul replay` and `romul "
                "sim --trace`."
            ),
        ),
        "replay": (
            "record",
            (
                "Decide a recorded run again: the same, or with other settings, to see where "
                "they part."
            ),
        ),
        "schedule": ("schedule", "The winner's hyperparameters, to train with again."),
    },
    "Maintenance": {
        "failures": ("attempts", "Show why attempts ended, and where in the search space."),
        "collect": (
            "checkpoints",
            "Remove checkpoints that no decision can ask for: what dead workers left behind.",
        ),
        "control": (
            "workers",
            "Have a worker drain, stop, or log at another level. Needs a broker.",
        ),
        "acl": (
            "acl",
            "Make a user of the server for each role, with a password and the rights it needs.",
        ),
        "dead": ("dead_letters", "Dead letters: messages that could not be read."),
    },
}
"""By panel and by name: the module in `romul_actors.cli` that has it, and its first line."""

GROUPS = ("schedule", "dead")
"""Those that have commands of their own."""

ALIASES: Mapping[str, str] = {"ls": "status", "rm": "remove"}
"""Short names that are not listed."""
