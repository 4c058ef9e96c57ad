"""Hugging Face Transformers: `romul run examples/frameworks/with_transformers.py`."""

import torch
import transformers

from romul_actors.protocol.experiment import Experiment, FloatSpec

experiment = Experiment(
    name="transformers",
    task="with_transformers",
    metric="eval_loss",
    population=8,
    steps=15,
    budget=40,
    budget_unit="update",
    space={
        "learning_rate": FloatSpec(type="float", min=1e-5, max=0.1, scale="log"),
        "weight_decay": FloatSpec(type="float", min=1e-4, max=1.0, scale="log"),
    },
)
SIZES = transformers.BertConfig(
    vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
)


class Step(transformers.TrainerCallback):
    """Ends a trial between two updates when asked."""

    def __init__(self, trial):
        self.trial = trial

    def on_step_end(self, args, state, control, **_):
        if state.global_step < state.max_steps and self.trial.should_stop:
            control.should_training_stop = True


def setup(context):
    """Sentences of 12 words; label 1 if more than half of them are among the last 10 of 20."""
    words = torch.randint(20, (1200, 12), generator=torch.Generator().manual_seed(0))
    labels = ((words >= 10).sum(1) > 6).long()
    rows = [{"input_ids": x, "labels": y} for x, y in zip(words, labels, strict=True)]
    return rows[:1000], rows[1000:]


def train(trial):
    model = transformers.BertForSequenceClassification(SIZES)
    optimizer = torch.optim.AdamW(model.parameters())
    arguments = transformers.TrainingArguments(
        max_steps=int(trial.stop - trial.start),  # it counts from 0 in each trial
        lr_scheduler_type="constant",
        per_device_train_batch_size=32,
        per_device_eval_batch_size=200,
        seed=trial.seed,
        use_cpu=trial.device == "cpu",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(
        model, arguments, None, *trial.state, callbacks=[Step(trial)], optimizers=(optimizer, None)
    )
    trial.attach(model=model, optimizer=optimizer)
    trainer.train()
    trial.save()
    if trainer.state.global_step < trainer.state.max_steps:
        return trial.pause(trial.start + trainer.state.global_step)
    # Only the loss: the times that `evaluate` returns differ if a trial is repeated.
    eval_loss = trainer.evaluate()["eval_loss"]
    return {"eval_loss": eval_loss, "lr": optimizer.param_groups[0]["lr"]}
