"""A drill: a real run on this machine into which faults are injected (`romul drill`).

Server, broker, actors, workers and tasks are real processes (`processes.py`). A seed determines the
times of the faults (`schedule.py`, `injector.py`). Afterwards an audit checks the store and the
checkpoints (`audit.py`). The task counts its updates in its checkpoints, so that work that was lost
or done twice is found even if no part of the system noticed it.
"""
