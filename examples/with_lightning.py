"""Lightning: bounds for your own LightningModule, and a callback that trains it under the schedule.

Needs `pip install 'clr[lightning]'`. Run it: python examples/with_lightning.py
"""

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from clr.integrations.lightning import CyclicSchedule, lr_bounds


class Digits(pl.LightningModule):
    """A network with one hidden layer, as you would write it without clr."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: list[Tensor]) -> Tensor:
        """The loss of a batch."""
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor]) -> None:
        """Accuracy on a batch."""
        x, y = batch
        self.log("accuracy", (self.net(x).argmax(1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer, whose rate the schedule will set."""
        return torch.optim.AdamW(self.parameters())


def main() -> None:
    """Test, then train."""
    pl.seed_everything(0, verbose=False)
    pixels, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    examples = TensorDataset((pixels.float() - 4.9) / 6.0, labels)
    train = DataLoader(torch.utils.data.Subset(examples, range(1200)), batch_size=50, shuffle=True)
    val = DataLoader(torch.utils.data.Subset(examples, range(1200, 1797)), batch_size=597)
    module = Digits()

    found = lr_bounds(module, train, val, epochs=10)
    print(found.to_python())

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=10, callbacks=[CyclicSchedule(found)], enable_model_summary=False, **quiet)
    trainer.fit(module, train, val)
    print(f"accuracy after {trainer.global_step} steps: {trainer.callback_metrics['accuracy']:.3f}")


if __name__ == "__main__":
    main()
