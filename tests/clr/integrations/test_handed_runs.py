"""A framework's own script, started for a run: it carries that out, whatever it would do by hand."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from clr.commands import RANKS
from clr.commands.current_run import current_run
from clr.errors import InvalidArgument
from clr.schedules.policies import schedule

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:lightning",
    "ignore:.*treespec.*:FutureWarning",
    "ignore:.*does not have many workers",
    "ignore:The number of training batches",
)

RUN = {
    "policy": "triangular",
    "base_lr": 0.001,
    "max_lr": 0.1,
    "step_size_up": 3,
    "step_size_down": 8,
    "gamma": None,
    "steps": 11,
    "seed": 5,
    "evaluate_every": 11,
}


@pytest.fixture(autouse=True)
def handed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run was handed over; the file to report to."""
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    monkeypatch.setenv("CLR_RUN", str(tmp_path / "run.json"))
    monkeypatch.setenv("CLR_POINTS", str(tmp_path / "points"))
    return tmp_path / "points"


def reported(file: Path) -> tuple[list[int], list[float], list[float]]:
    """Steps and losses, and metrics after the last step."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    with_loss = [line for line in lines if "loss" in line]
    metrics = [line["metric"] for line in lines if "metric" in line and line["step"] == RUN["steps"]]
    return [line["step"] for line in with_loss], [line["loss"] for line in with_loss], metrics


def rates() -> list[float]:
    rate = schedule("triangular", base_lr=0.001, max_lr=0.1, stepsize=3, stepsize_down=8)
    return [rate(step) for step in range(11)]


def data() -> TensorDataset:
    torch.manual_seed(0)
    x = torch.randn(60, 4)
    return TensorDataset(x, x.sum(1, keepdim=True))


def lightning(folder: Path, **more: Any) -> tuple[Any, Any]:
    """A trainer and its module; nothing says that it is validated as often as the run asks for."""
    pl: Any = pytest.importorskip("lightning.pytorch")
    from clr.integrations.lightning import CyclicSchedule

    class Line(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 1)
            self.seen: list[float] = []

        def training_step(self, batch: Any) -> Any:
            self.seen.append(self.optimizers().param_groups[0]["lr"])
            return F.mse_loss(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any) -> None:
            self.log("val_loss", F.mse_loss(self.net(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.5)

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        max_epochs=100,
        accelerator="cpu",
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[CyclicSchedule(current_run(), metric="val_loss")],
        **quiet,
        **more,
    )
    return trainer, Line()


@pytest.mark.parametrize("more", [{}, {"check_val_every_n_epoch": 50}])
def test_lightning_carries_out_the_run(tmp_path: Path, handed: Path, more: dict[str, Any]) -> None:
    trainer, module = lightning(tmp_path, **more)
    loader = DataLoader(data(), batch_size=10)
    trainer.fit(module, loader, loader)
    steps, losses, metrics = reported(handed)
    assert steps == list(range(1, 12))
    assert losses[-1] < losses[0]
    assert module.seen == pytest.approx(rates())
    assert metrics == [pytest.approx(trainer.callback_metrics["val_loss"].item())]


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_lightning_without_a_validation_has_no_metric_to_be_judged_by(tmp_path: Path) -> None:
    trainer, module = lightning(tmp_path)
    with pytest.raises(InvalidArgument, match=r"metric: must be logged by the validation .* but got 'val_loss'"):
        trainer.fit(module, DataLoader(data(), batch_size=10))


def test_a_transformers_trainer_carries_out_the_run(tmp_path: Path, handed: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    from clr.integrations.transformers import install

    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 1)

        def forward(self, x: Any, labels: Any) -> Any:
            output = self.net(x)
            return {"loss": F.mse_loss(output, labels), "logits": output}

    class Rates(transformers.TrainerCallback):  # type: ignore[misc]
        seen: ClassVar[list[float]] = []

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **held: Any) -> None:
            self.seen.append(held["optimizer"].param_groups[0]["lr"])

    examples = [{"x": x, "labels": y} for x, y in data()]
    quiet = {"report_to": [], "disable_tqdm": True, "dataloader_pin_memory": False, "use_cpu": True}
    args = transformers.TrainingArguments(str(tmp_path), num_train_epochs=100, per_device_train_batch_size=10, **quiet)
    trainer = transformers.Trainer(Line(), args, train_dataset=examples, eval_dataset=examples)
    install(trainer, metric="eval_loss")
    trainer.add_callback(Rates())
    trainer.train()
    steps, losses, metrics = reported(handed)
    assert steps == list(range(1, 12))
    assert losses[-1] < losses[0]
    assert Rates.seen == pytest.approx(rates())
    assert metrics == [pytest.approx(trainer.evaluate()["eval_loss"])]
    assert not list(tmp_path.glob("checkpoint*"))


def test_without_a_run_there_must_be_something_to_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    from clr.integrations.transformers import install

    monkeypatch.delenv("CLR_RUN")
    with pytest.raises(InvalidArgument, match="found: must be a recommendation"):
        install(None)  # type: ignore[arg-type]
