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

from lightning.pytorch.callbacks import GradientAccumulationScheduler  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402

from clr.integrations.lightning import CyclicSchedule, lr_bounds  # noqa: E402

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
    torch.manual_seed(0)
    module = Digits()
    before = state(module)
    found = lr_bounds(module, loader(), DataLoader(VAL, batch_size=600), epochs=8)
    assert state(module) == before, "left bit for bit as it was"
    return found


def test_a_module_is_tested_and_then_trained_under_the_recommended_schedule(
    found: Recommendation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
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
    assert "middle of a cycle" not in caplog.text


def test_a_training_goes_on_from_lightnings_own_checkpoint_at_the_step_of_the_schedule(
    found: Recommendation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rates = Rates()
    first = trainer(tmp_path, max_epochs=2, callbacks=[CyclicSchedule(found)])
    first.fit(Digits(), loader())
    first.save_checkpoint(tmp_path / "half.ckpt")
    second = trainer(tmp_path, max_epochs=3, callbacks=[CyclicSchedule(found), rates])
    second.fit(Digits(), loader(), ckpt_path=tmp_path / "half.ckpt")
    rate = schedule("triangular", base_lr=found.base_lr, max_lr=found.max_lr, stepsize=46, stepsize_down=106)
    assert rates.seen == pytest.approx([rate(step) for step in range(38, 57)])
    assert "takes 57 steps, and ends in the middle of a cycle of 152: train for 152" in caplog.text


X = torch.randn(240, 5, generator=torch.Generator().manual_seed(0))
Y = X @ torch.ones(5, 1)


class Plain(pl.LightningModule):
    """A line: as little as Lightning takes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(5, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def lines(scale: float = 1.0, count: int = 240) -> DataLoader[Any]:
    return DataLoader(TensorDataset(scale * X[:count], Y[:count]), batch_size=20, shuffle=True)


LENGTHS: dict[str, dict[str, Any]] = {
    "epochs": {"max_epochs": 20},
    "a share of the batches": {"max_epochs": 30, "limit_train_batches": 0.5},
    "a number of batches": {"max_epochs": 30, "limit_train_batches": 5},
    "overfitting": {"max_epochs": 40, "overfit_batches": 4},
    "steps alone": {"max_steps": 150},
    "steps before epochs": {"max_epochs": 40, "max_steps": 150},
    "endless epochs": {"max_epochs": -1, "max_steps": 150},
    "accumulation": {"max_epochs": 50, "accumulate_grad_batches": 5},
    "accumulation that changes": {"max_epochs": 20, "callbacks": [GradientAccumulationScheduler({0: 1, 10: 2})]},
}


@pytest.mark.filterwarnings("ignore:You requested to overfit")
@pytest.mark.parametrize("name", LENGTHS)
def test_a_training_under_the_schedule_ends_at_base_lr_whatever_limits_it(name: str, tmp_path: Path) -> None:
    module, tested = Plain(), trainer(tmp_path, **LENGTHS[name])
    found = lr_bounds(module, lines(), trainer=tested, seeds=1)
    assert found.base_lr is not None
    tested.callbacks.append(CyclicSchedule(found))
    tested.fit(module, lines())
    assert found.stepsize is not None
    cycles = round(tested.global_step / (2 * found.stepsize))
    assert 0 <= tested.global_step - 2 * cycles * found.stepsize < 2 * cycles
    assert tested.optimizers[0].param_groups[0]["lr"] < 2 * found.base_lr


class Scaled(Plain):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] / 255, batch[1]]


class ScaledData(pl.LightningDataModule):
    def train_dataloader(self) -> Any:
        return lines(255.0)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] / 255, batch[1]]


@pytest.mark.parametrize(("module", "data"), [(Scaled, lambda: lines(255.0)), (Plain, ScaledData)])
def test_hooks_that_change_a_batch_are_called(module: Any, data: Any) -> None:
    plain = lr_bounds(Plain(), lines(), epochs=15, seeds=1)
    assert lr_bounds(module(), data(), epochs=15, seeds=1).max_lr == pytest.approx(plain.max_lr, rel=0.1)


class MadeInSetup(Plain):
    def __init__(self) -> None:
        super().__init__()
        del self.net

    def setup(self, stage: str) -> None:
        self.net = nn.Linear(5, 1)


class MadeInConfigure(MadeInSetup):
    def setup(self, stage: str) -> None:
        pass

    def configure_model(self) -> None:
        if not hasattr(self, "net"):
            self.net = nn.Linear(5, 1)


class AsksTheTrainer(Plain):
    def configure_optimizers(self) -> Any:
        one = torch.optim.AdamW(self.trainer.model.parameters(), lr=0.1)
        steps = self.trainer.estimated_stepping_batches
        return [one], [{"scheduler": torch.optim.lr_scheduler.OneCycleLR(one, 0.1, steps), "interval": "step"}]


class Monitors(Plain):
    def configure_optimizers(self) -> Any:
        one = torch.optim.Adam(params=self.trainer.model.parameters(), lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(one)
        return {"optimizer": one, "lr_scheduler": {"scheduler": plateau, "monitor": "val/loss"}}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self.training_step(batch, batch_idx))

    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(X, Y), batch_size=20)


class Pairs(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return sum(Plain.training_step(self, one, batch_idx) for one in batch)


class Sometimes(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return loss if torch.rand(()) > 0.2 else None


class HasLoaders(Plain):
    def train_dataloader(self) -> Any:
        return lines()

    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(X, Y), batch_size=20)


class TakesAnIterator(Plain):
    def training_step(self, dataloader_iter: Any) -> Any:  # type: ignore[override]
        batch, index, _ = next(dataloader_iter)
        return super().training_step(batch, index)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`", "ignore:.*`training_step` returned `None`")
@pytest.mark.filterwarnings("ignore:.*`dataloader_iter`", "ignore:You passed in a `val_dataloader`")
@pytest.mark.parametrize(
    ("module", "data"),
    [
        (MadeInSetup, lines),
        (MadeInConfigure, lines),
        (AsksTheTrainer, lines),
        (Monitors, lines),
        (Pairs, lambda: [lines(), lines(count=100)]),
        (Sometimes, lines),
        (HasLoaders, lambda: None),
        (TakesAnIterator, lines),
    ],
)
def test_what_fit_trains_is_tested_and_left_as_it_was(module: Any, data: Any, tmp_path: Path) -> None:
    one, own = module(), trainer(tmp_path, max_epochs=15)
    held, names = dict(vars(own)), set(dir(one))
    weights = {name: value.clone() for name, value in one.state_dict().items()}
    found = lr_bounds(one, data(), trainer=own, seeds=1)
    assert found.max_lr is not None
    assert found.stepsize == 90
    assert vars(own) == held
    assert set(dir(one)) == names
    assert {name: value.tolist() for name, value in one.state_dict().items()} == {
        name: value.tolist() for name, value in weights.items()
    }
    own.fit(one, data())
    assert own.global_step == 180


def test_a_compiled_module_is_tested_as_fit_trains_it(tmp_path: Path) -> None:
    compiled = torch.compile(Plain(), backend="eager")
    assert lr_bounds(compiled, lines(), trainer=trainer(tmp_path, max_epochs=15), seeds=1).stepsize == 90  # type: ignore[arg-type]


def test_gradients_are_clipped_as_the_trainer_clips_them(tmp_path: Path) -> None:
    def found(algorithm: str) -> float:
        settings = {"max_epochs": 15, "gradient_clip_val": 0.01, "gradient_clip_algorithm": algorithm}
        got = lr_bounds(Plain(), lines(), trainer=trainer(tmp_path, **settings), seeds=1).max_lr
        assert got is not None
        return got

    assert found("value") != found("norm")


def test_proportions_of_a_modules_groups_are_kept(tmp_path: Path) -> None:
    class Groups(Plain):
        def configure_optimizers(self) -> Any:
            groups = [{"params": [self.net.weight], "lr": 0.01}, {"params": [self.net.bias], "lr": 0.1}]
            return torch.optim.SGD(groups)

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            seen.add(round(optimizer.param_groups[0]["lr"] / optimizer.param_groups[1]["lr"], 6))

    seen: set[float] = set()
    lr_bounds(Groups(), lines(), trainer=trainer(tmp_path, max_epochs=15), seeds=1)
    assert seen == {0.1}


def test_nothing_is_logged_and_no_callback_is_called(tmp_path: Path) -> None:
    class Logs(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.logger.log_metrics({"own": 1.0}, step=self.global_step)
            loss = super().training_step(batch, batch_idx)
            self.log("train/loss", loss, on_step=True)
            return loss

        def configure_callbacks(self) -> Any:
            return [Forbidden()]

    class Forbidden(pl.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            raise AssertionError("a callback of the user's")

    logger = CSVLogger(tmp_path)
    own = trainer(tmp_path, max_epochs=15, logger=logger, callbacks=[Forbidden()], log_every_n_steps=1)
    assert lr_bounds(Logs(), lines(), trainer=own, seeds=1).max_lr is not None
    assert logger.experiment.metrics == []
    assert not list(tmp_path.rglob("metrics.csv"))


def test_an_interrupt_leaves_everything_as_it_was(tmp_path: Path) -> None:
    class Interrupted(Plain):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            if self.global_step == 3:
                raise KeyboardInterrupt

    module, own = Interrupted(), trainer(tmp_path, max_epochs=15)
    held, weight = dict(vars(own)), module.net.weight.tolist()
    with pytest.raises(KeyboardInterrupt):
        lr_bounds(module, lines(), trainer=own)
    assert (vars(own), module.net.weight.tolist()) == (held, weight)


@pytest.mark.filterwarnings("ignore:.LightningModule.configure_optimizers. returned .None")
@pytest.mark.parametrize(
    ("module", "options", "says"),
    [
        (Digits(automatic=False), {"epochs": 5}, "module: must configure one optimizer and not step it by hand"),
        (Digits(lambda one: [one, one]), {"epochs": 5}, r"module: must configure one optimizer .*`clr tune`"),
        (nn.Linear(4, 2), {"epochs": 5}, "module: must be a LightningModule of lightning.pytorch"),
        (Digits(), {"trainer": object()}, "trainer: must be a Trainer of lightning.pytorch"),
        (Digits(lambda one: None), {"epochs": 5}, "module: must configure an optimizer of its parameters"),
        (Digits(), {}, "epochs: must be given, or a trainer with max_epochs"),
        (Digits(), {"epochs": -1}, "epochs: must be above 0 and finite, but got -1"),
    ],
)
def test_a_broken_rule_is_named(module: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        lr_bounds(module, loader(), **options)


def test_an_inconclusive_recommendation_does_not_train(tmp_path: Path) -> None:
    class Constant(Digits):
        def training_step(self, batch: Any) -> Tensor:  # type: ignore[override]
            return (0 * self.net(batch[0])).sum() + 1.0

    found = lr_bounds(Constant(), loader(), epochs=8)
    assert (found.confidence, found.max_lr) == ("inconclusive", None)
    with pytest.raises(InvalidArgument, match="must have bounds, but is inconclusive: "):
        trainer(tmp_path, callbacks=[CyclicSchedule(found)]).fit(Constant(), loader())
