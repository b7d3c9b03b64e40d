"""The real Lightning on a small network and scikit-learn's digits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from clr.errors import InvalidArgument
from clr.schedules.policies import schedule
from clr.tasks import load_task
from clr.tuning.recommendation import Recommendation

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:lightning",
    "ignore:.*treespec.*:FutureWarning",
    "ignore:.*does not have many workers",
    "ignore:The number of training batches",
    "ignore:You defined a `validation_step`",
)

pl = pytest.importorskip("lightning.pytorch")

TASK = load_task("digits")
TRAIN, VAL = TensorDataset(*TASK.train), TensorDataset(*TASK.val)


class Digits(pl.LightningModule):
    """Logs, keeps a metric, drops out, normalises: all that a test could leave traces in."""

    def __init__(self, configured: Callable[[Any], Any] | None = None, **settings: Any) -> None:
        super().__init__()
        import torchmetrics

        self.net = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(0.1), nn.ReLU(), nn.Linear(32, 10))
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=10)
        self.seen, self.configured = 0, configured
        self.automatic_optimization = settings.get("automatic", True)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        output = self.net(x)
        self.accuracy.update(output, y)
        self.seen += len(x)
        self.log("accuracy", self.accuracy)
        return {"loss": F.cross_entropy(output, y)}

    def validation_step(self, batch: Any) -> None:
        x, y = batch
        self.log("val_accuracy", (self.net(x).argmax(1) == y).float().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1e-3, momentum=0.9)
        if self.configured is not None:
            return self.configured(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1)}


class Data(pl.LightningDataModule):
    def setup(self, stage: str) -> None:
        self.examples = TRAIN

    def train_dataloader(self) -> Any:
        return loader()


def loader() -> DataLoader[Any]:
    return DataLoader(TRAIN, batch_size=64, shuffle=True)


def trainer(folder: Path, **changes: Any) -> Any:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"max_epochs": 8, "accelerator": "cpu", "enable_checkpointing": False, "default_root_dir": folder}
    return pl.Trainer(**quiet | options | changes)


def state(module: Any) -> list[Any]:
    metric = [vars(module.accuracy)[name] for name in module.accuracy._defaults]
    tensors = [*module.state_dict().values(), *metric, torch.get_rng_state()]
    flags = [one.training for one in module.modules()]
    plain = [module.seen, module.accuracy._update_count, module._trainer, flags, sorted(vars(module))]
    return [*plain, *(tensor.numpy().tobytes() for tensor in tensors)]


class Rates(pl.Callback):
    """The rate of every optimizer step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])


@pytest.fixture(scope="module")
def found() -> Recommendation:
    from clr.integrations.lightning import lr_bounds

    torch.manual_seed(0)
    module = Digits()
    before = state(module)
    found = lr_bounds(module, loader(), DataLoader(VAL, batch_size=600), epochs=8)
    assert state(module) == before, "left bit for bit as it was"
    return found


def test_a_module_is_tested_and_then_trained_under_the_recommended_schedule(
    found: Recommendation, tmp_path: Path
) -> None:
    from clr.integrations.lightning import CyclicSchedule

    assert found.max_lr is not None
    assert found.cost is not None
    assert found.cost.relative_to_one_training <= 1
    assert (found.iterations_per_epoch, found.stepsize) == (19, 76)
    torch.manual_seed(0)
    rates, fitted = Rates(), trainer(tmp_path)
    fitted.callbacks += [CyclicSchedule(found), rates]
    fitted.fit(Digits(), loader(), DataLoader(VAL, batch_size=600))
    rate = schedule("triangular", base_lr=found.base_lr, max_lr=found.max_lr, stepsize=46, stepsize_down=106)
    assert rates.seen == pytest.approx([rate(step) for step in range(152)])
    assert fitted.callback_metrics["val_accuracy"] > 0.9


def test_a_training_goes_on_from_lightnings_own_checkpoint_at_the_step_of_the_schedule(
    found: Recommendation, tmp_path: Path
) -> None:
    from clr.integrations.lightning import CyclicSchedule

    rates = Rates()
    first = trainer(tmp_path, max_epochs=2, callbacks=[CyclicSchedule(found)])
    first.fit(Digits(), loader())
    first.save_checkpoint(tmp_path / "half.ckpt")
    second = trainer(tmp_path, max_epochs=3, callbacks=[CyclicSchedule(found), rates])
    second.fit(Digits(), loader(), ckpt_path=tmp_path / "half.ckpt")
    rate = schedule("triangular", base_lr=found.base_lr, max_lr=found.max_lr, stepsize=46, stepsize_down=106)
    assert rates.seen == pytest.approx([rate(step) for step in range(38, 57)])


def test_the_trainers_accumulation_clipping_and_precision_are_those_of_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clr.integrations import lightning

    tasks = []
    real = lightning.recommended
    monkeypatch.setattr(lightning, "recommended", lambda *args, **own: tasks.append(own) or real(*args, **own))
    options = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5, "precision": "bf16-mixed", "max_epochs": 4}
    module = Digits()
    before = state(module)
    found = lightning.lr_bounds(module, Data(), trainer=trainer(tmp_path, **options))
    assert found.iterations_per_epoch == 10
    (own,) = tasks
    assert (own["accumulate"], own["clip_norm"], own["precision"]) == (2, 0.5, "bf16")
    assert state(module) == before


@pytest.mark.parametrize(
    "configured",
    [
        lambda one: one,
        lambda one: [one],
        lambda one: ([one], [torch.optim.lr_scheduler.StepLR(one, 1)]),
        lambda one: ({"optimizer": one},),
    ],
)
def test_the_optimizer_is_found_in_every_form_that_a_module_may_give_it(configured: Any) -> None:
    from clr.integrations.lightning import _only, _optimizers

    module = Digits(configured)
    assert isinstance(_only(_optimizers(module.configure_optimizers())), torch.optim.SGD)


@pytest.mark.parametrize(
    ("module", "options", "says"),
    [
        (Digits(automatic=False), {"epochs": 5}, "module: must use automatic optimization"),
        (Digits(lambda one: [one, one]), {"epochs": 5}, "module: must configure one optimizer, but got 2"),
        (Digits(), {}, "epochs: must be given, or a trainer with max_epochs"),
        (Digits(), {"epochs": -1}, "epochs: must be above 0 and finite, but got -1"),
    ],
)
def test_a_broken_rule_is_named(module: Any, options: dict[str, Any], says: str) -> None:
    from clr.integrations.lightning import lr_bounds

    with pytest.raises(InvalidArgument, match=says):
        lr_bounds(module, loader(), **options)


def test_an_inconclusive_recommendation_does_not_train(tmp_path: Path) -> None:
    from clr.integrations.lightning import CyclicSchedule, lr_bounds

    class Constant(Digits):
        def training_step(self, batch: Any) -> Tensor:  # type: ignore[override]
            return (0 * self.net(batch[0])).sum() + 1.0

    found = lr_bounds(Constant(), loader(), epochs=8)
    assert (found.confidence, found.max_lr) == ("inconclusive", None)
    with pytest.raises(InvalidArgument, match="must have bounds, as an inconclusive one has none"):
        trainer(tmp_path, callbacks=[CyclicSchedule(found)]).fit(Constant(), loader())
