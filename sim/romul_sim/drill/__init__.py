"""A drill: a real run on this machine, with everything that can break broken on purpose.

Real server, broker, actors, workers and tasks, as processes (`processes.py`); faults at times that
a seed fixes (`schedule.py`, `faults.py`); afterwards an audit of what the store and the checkpoints
hold (`audit.py`). The task counts its own updates inside its checkpoints, so that work that was
lost or done twice shows even if no part of the system noticed it.
"""
