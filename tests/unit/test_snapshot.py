"""Snapshots: what programs read of an experiment."""

from romul_actors.core.history import TrialReported


def test_a_snapshot_is_plain_values_and_frames(searched):
    assert (searched.status, len(searched.slots), searched.counts["reported"]) == (
        "finished",
        8,
        96,
    )
    best = min(line.value for line in searched.history if isinstance(line, TrialReported))
    assert searched.best["loss"] == best
    frame = searched.trials_frame()
    assert len(frame) == 96
    assert frame["value"].min() == best
    assert set(frame.columns) >= {"slot", "step", "parent", "h.x0", "m.true_loss", "seconds"}
    assert list(searched.slots_frame()["index"]) == list(range(8))
    assert len(searched.history_frame()) == len(searched.history)
    assert len(searched.workers_frame()) == len(searched.workers)
