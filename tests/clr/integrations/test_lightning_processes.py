"""Lightning in two processes: both find the same bounds, as one process does, and follow the same schedule."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clr.schedules.policies import schedule

pytest.importorskip("lightning.pytorch")

SCRIPT = """
import json, pathlib, sys
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from clr.integrations.lightning import CyclicSchedule, lr_bounds

folder, devices = pathlib.Path(sys.argv[1]), int(sys.argv[2])
seed_everything(3, verbose=False)
pixels, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
data = TensorDataset((pixels.float() - 4.9)[:1200] / 6.0, labels[:1200])
loader = DataLoader(data, batch_size=48 // devices, shuffle=True)


class Digits(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Rates(Callback):
    seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append(optimizer.param_groups[0]["lr"])


quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
how = {"strategy": "ddp"} if devices == 2 else {}
trainer = Trainer(max_epochs=16, accelerator="cpu", devices=devices, **how, **quiet)
module = Digits()
found = lr_bounds(module, loader, trainer=trainer, seeds=1)
trainer.callbacks += [CyclicSchedule(found), Rates()]
trainer.fit(module, loader)
told = {"found": found.to_dict() | {"cost": None}, "rates": Rates.seen}
folder.joinpath(f"{devices}-{trainer.global_rank}.json").write_text(json.dumps(told))
"""


@pytest.mark.long
@pytest.mark.timeout(600)
def test_two_processes_find_what_one_finds_and_follow_the_same_schedule(tmp_path: Path) -> None:
    tmp_path.joinpath("script.py").write_text(SCRIPT)
    root = str(Path(__file__).parents[3])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}

    def told(devices: int, rank: int) -> Any:
        return json.loads((tmp_path / f"{devices}-{rank}.json").read_text())

    for devices in (1, 2):
        command = [sys.executable, "script.py", str(tmp_path), str(devices)]
        subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=280, capture_output=True)
    assert told(2, 0) == told(2, 1)
    found, alone = told(2, 0)["found"], told(1, 0)["found"]
    low, high = alone["interval"]["max_lr"]
    assert low <= found["max_lr"] <= high
    assert found["iterations_per_epoch"] == alone["iterations_per_epoch"] == 25, "an update, not a batch of a process"
    up, down = found["step_size_up"], found["step_size_down"]
    rate = schedule("triangular", base_lr=found["base_lr"], max_lr=found["max_lr"], stepsize=up, stepsize_down=down)
    assert up + down == 400
    assert told(2, 0)["rates"] == pytest.approx([rate(step) for step in range(400)])
