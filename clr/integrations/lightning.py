"""The range test on a ``LightningModule``, and a callback that trains it under the recommended schedule."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from clr.commands.current_run import CurrentRun, handed_run
from clr.errors import InvalidArgument
from clr.extras import require
from clr.integrations.borrowing import recommended
from clr.schedules.cycles import TrainingLength
from clr.training.data import Batch, batches_per_epoch
from clr.training.random_states import random_states, set_random_states
from clr.tuning.recommendation import Recommendation

try:
    from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
    from lightning.pytorch.utilities.types import LRSchedulerConfig
except ModuleNotFoundError:
    require("lightning")
    raise

PRECISIONS = {"32-true": "fp32", "bf16-mixed": "bf16", "16-mixed": "fp16"}
"""What Lightning calls the precisions that a test can have."""


def lr_bounds(
    module: LightningModule,
    train: Any,
    val: Any = None,
    *,
    epochs: float | None = None,
    trainer: Trainer | None = None,
    seeds: int = 3,
    seed: int = 0,
) -> Recommendation:
    """Find the bounds for training ``module`` by the LR range test on its own ``training_step`` and optimizer.

    The loss of the validation data is ``training_step``'s too. Nothing is logged; of the hooks only those of the data
    module are called. Module, its metrics and the random states are left bit for bit as they were.

    Args:
        module: with automatic optimization and one optimizer.
        train: the training loader, or a ``LightningDataModule`` that has it.
        val: the validation loader, if any.
        epochs: length of the training to find bounds for, > 0; None: the trainer's ``max_epochs``.
        trainer: whose accumulation, clipping, precision and device the test takes over. None: there are none, and the
            module stays on its device.
        seeds: most repetitions of the test, >= 1.
        seed: what their seeds are made from.

    Returns:
        The recommendation of the range test; an inconclusive one has no bounds, but reasons.

    Raises:
        InvalidArgument: a rule above is broken.
    """
    if not module.automatic_optimization:
        raise InvalidArgument("module", "must use automatic optimization", module)
    if epochs is None and trainer is not None:
        epochs = trainer.max_epochs
    if epochs is None:
        raise InvalidArgument("epochs", "must be given, or a trainer with max_epochs")
    with _left_as_it_was(module, trainer):
        if isinstance(train, LightningDataModule):
            train, val = _loaders(train)
        accumulate = trainer.accumulate_grad_batches if trainer else 1
        return recommended(
            TrainingLength(epochs, ceil(batches_per_epoch(train, 1) / accumulate)),
            seeds,
            seed,
            model=module,
            optimizer=_only(_optimizers(module.configure_optimizers())),
            train=train,
            val=val,
            forward=_forward,
            loss=lambda loss, _: loss,
            accumulate=accumulate,
            **_settings(trainer),
        )


class CyclicSchedule(Callback):
    """Trains under the recommended schedule, stepped after every optimizer step, instead of the module's own.

    Lightning saves it in its checkpoints and goes on with it.

    Where ``clr tune`` or a service started the program, it carries out that run instead: its steps, its rates, its
    seed (from when the fit starts; seed the module's own start by ``clr.current_run().seed``), and reports to it.

    Args:
        found: what ``lr_bounds`` recommends, any other conclusive recommendation, or ``clr.current_run(...)``. None:
            the run that the program was started for.
        metric: of a run, the name of a logged value of the validation, to be judged by; None: the loss is.

    Raises:
        InvalidArgument: when training starts with an inconclusive recommendation, or without anything to follow.
    """

    def __init__(self, found: Recommendation | CurrentRun | None = None, *, metric: str | None = None) -> None:
        self.found, self.metric = handed_run() or found, metric

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the place of whatever schedulers the module configured."""
        if self.found is None:
            raise InvalidArgument("found", "must be a recommendation or clr.current_run(...)", None)
        if isinstance(self.found, CurrentRun):
            seed_everything(self.found.seed, verbose=False)
            trainer.fit_loop.max_epochs, trainer.fit_loop.epoch_loop.max_steps = -1, self.found.steps
        scheduler = self.found.scheduler(_only(trainer.optimizers))
        trainer.strategy.lr_scheduler_configs = [LRSchedulerConfig(scheduler, interval="step", name="clr")]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report the loss of the step that was taken, if one was."""
        run = self.found
        if isinstance(run, CurrentRun) and trainer.global_step > run.logged:
            run.log(loss=outputs["loss"], step=trainer.global_step)
            trainer.should_stop = trainer.global_step == run.steps  # only then does the validation still come

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the metric."""
        if isinstance(self.found, CurrentRun) and self.metric is not None and not trainer.sanity_checking:
            if self.metric not in trainer.callback_metrics:
                known = ", ".join(trainer.callback_metrics) or "nothing"
                raise InvalidArgument("metric", f"must be the name of what the module logs ({known})", self.metric)
            self.found.log(metric=trainer.callback_metrics[self.metric])


def _forward(model: nn.Module, batch: Batch) -> tuple[Tensor, None]:
    step: Any = model.training_step
    takes_index = len(inspect.signature(step).parameters) > 1
    output = step(batch, 0) if takes_index else step(batch)
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if not isinstance(loss, Tensor):
        raise InvalidArgument("module", "must return a loss, a tensor, from training_step", output)
    return loss, None


def _loaders(data: LightningDataModule) -> tuple[Any, Any]:
    data.prepare_data()
    data.setup("fit")
    own = type(data).val_dataloader is not LightningDataModule.val_dataloader
    return data.train_dataloader(), data.val_dataloader() if own else None


def _settings(trainer: Trainer | None) -> dict[str, Any]:
    if trainer is None:
        return {}
    precision = str(trainer.precision)
    if precision not in PRECISIONS:
        raise InvalidArgument("trainer.precision", f"must be one of {', '.join(PRECISIONS)}", precision)
    return {"clip_norm": trainer.gradient_clip_val or None, "precision": PRECISIONS[precision]}


def _optimizers(configured: Any) -> list[Optimizer]:
    """The optimizers in whatever form ``configure_optimizers`` may return them."""
    if isinstance(configured, Optimizer):
        return [configured]
    if isinstance(configured, Mapping):
        return [configured["optimizer"]]
    if isinstance(configured, tuple) and configured and isinstance(configured[0], list):
        configured = configured[0]  # optimizers, schedulers
    return [one for each in configured or () for one in _optimizers(each)]


def _only(optimizers: list[Optimizer]) -> Optimizer:
    if len(optimizers) != 1:
        raise InvalidArgument("module", "must configure one optimizer", len(optimizers))
    return optimizers[0]


@contextmanager
def _left_as_it_was(module: LightningModule, trainer: Trainer | None) -> Iterator[None]:
    """The module beside a trainer, on its device and with its logging off; afterwards as before."""
    own: list[Any] = [one for one in module.modules() if isinstance(one, LightningModule)]
    device, attached, states = module.device, module._trainer, random_states()
    try:
        for one in own:
            vars(one).update(log=_nothing, log_dict=_nothing)
        if trainer is not None:
            module.trainer = trainer
            module.to(trainer.strategy.root_device)
        yield
    finally:
        module.to(device)
        module.trainer = attached
        for one in own:
            del vars(one)["log"], vars(one)["log_dict"]
        set_random_states(states)


def _nothing(*_: Any, **__: Any) -> None:
    """Log it nowhere."""
