"""PyTorch Lightning: `romul run examples/frameworks/with_lightning.py`."""

import lightning
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from romul_actors.protocol.experiment import Experiment, FloatSpec

experiment = Experiment(
    name="lightning",
    task="with_lightning",
    metric="val_loss",
    population=8,
    steps=15,
    budget_unit="epoch",
    space={
        "lr": FloatSpec(type="float", min=1e-5, max=0.1, scale="log"),
        "weight_decay": FloatSpec(type="float", min=1e-4, max=1.0, scale="log"),
    },
)


class Digits(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
        )

    def training_step(self, batch):
        return cross_entropy(self.layers(batch[0]), batch[1])

    def validation_step(self, batch):
        self.log("val_loss", cross_entropy(self.layers(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


class Step(lightning.Callback):
    """One trial: restores before the first batch, and ends between two epochs when asked."""

    def __init__(self, trial):
        self.trial = trial

    def on_train_start(self, trainer, module):
        self.trial.attach(model=module, optimizer=trainer.optimizers[0])

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch + 1 < trainer.max_epochs and self.trial.should_stop:
            trainer.should_stop = True


def setup(context):
    x, y = (torch.tensor(part) for part in load_digits(return_X_y=True))
    data = TensorDataset(x.float() / 16, y)
    return [torch.utils.data.Subset(data, part) for part in (range(1200), range(1200, len(y)))]


def train(trial):
    training, validation = trial.state
    trainer = lightning.Trainer(
        accelerator="cpu" if trial.device == "cpu" else "gpu",
        devices=1,
        max_epochs=int(trial.stop - trial.start),  # it counts from 0 in each trial
        callbacks=[Step(trial)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(
        Digits(), DataLoader(training, 32, shuffle=True), DataLoader(validation, len(validation))
    )
    trial.save()
    if trainer.current_epoch < trainer.max_epochs:
        return trial.pause(trial.start + trainer.current_epoch)
    lr = trainer.optimizers[0].param_groups[0]["lr"]
    return {"val_loss": trainer.callback_metrics["val_loss"], "lr": lr}
