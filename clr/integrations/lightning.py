"""The range test on a ``LightningModule``, and a callback that trains it under the recommended schedule."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace
from math import ceil, isfinite
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from clr.commands.current_run import CurrentRun, handed_run
from clr.errors import SHOWN, InvalidArgument
from clr.extras import require
from clr.integrations.recommending import conclusive, recommended, warn_of_mid_cycle
from clr.integrations.recorder import Recorder
from clr.run import Curve, Run
from clr.schedules.cycles import TrainingLength
from clr.training.borrowing import generator_state
from clr.training.data import batch_length, loader_generators
from clr.training.first_step import WRONG
from clr.training.loop import ONE_STEP
from clr.training.module_state import module_state, parameter_state
from clr.training.network import SEVERAL
from clr.training.random_states import OwnRandomStates, random_states, set_random_states
from clr.tuning.recommendation import Recommendation

try:
    from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
    from lightning.pytorch.callbacks import GradientAccumulationScheduler
    from lightning.pytorch.loggers.logger import DummyLogger
    from lightning.pytorch.loops.fit_loop import _FitLoop
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
    from lightning.pytorch.profilers import PassThroughProfiler
    from lightning.pytorch.trainer.states import TrainerFn, TrainerState, TrainerStatus
    from lightning.pytorch.utilities.combined_loader import CombinedLoader
    from lightning.pytorch.utilities.compile import _maybe_unwrap_optimized
    from lightning.pytorch.utilities.types import LRSchedulerConfig
except ModuleNotFoundError:
    require("lightning")
    raise

ONE = f"must configure one optimizer and not step it by hand: {SEVERAL}"


def lr_bounds(
    module: LightningModule,
    train: Any = None,
    val: Any = None,
    *,
    epochs: float | None = None,
    trainer: Trainer | None = None,
    seeds: int = 3,
    seed: int = 0,
) -> Recommendation:
    """Find the bounds for training ``module``, by runs that Lightning's own loops make.

    Each run is a ``fit`` of the trainer: its devices, precision, accumulation, clipping and limits, all hooks of the
    module and the data module. Only the rates are the test's, nothing is logged or saved, no callback but a
    ``GradientAccumulationScheduler`` is called, and there is no validation loop: the loss of the validation data is
    ``training_step``'s too. Module, data module, trainer and random states are left bit for bit as they were.

    Args:
        module: with automatic optimization and one optimizer.
        train: what ``fit`` takes: loaders, a ``LightningDataModule``, or None where the module has its loaders.
        val: the validation loaders, if any.
        epochs: length of the training to find bounds for, > 0; None: that of the trainer, as Lightning estimates it.
        trainer: that will train. None: one without accumulation and clipping, on the module's device.
        seeds: most repetitions of the test, >= 1.
        seed: what their seeds are made from.

    Returns:
        The recommendation of the range test; an inconclusive one has no bounds, but reasons.

    Raises:
        InvalidArgument: a rule above is broken.
    """
    module = _checked(module)
    if trainer is not None and not isinstance(trainer, Trainer):
        raise InvalidArgument("trainer", "must be a Trainer of lightning.pytorch", trainer)
    if not module.automatic_optimization:
        raise InvalidArgument("module", ONE, module)
    if epochs is not None:
        TrainingLength(epochs, 1)  # its rule
    elif trainer is None or (trainer.max_epochs in (None, -1) and trainer.max_steps == -1):
        raise InvalidArgument("epochs", "must be given, or a trainer with max_epochs or max_steps")
    with _quiet():
        test = _Test(trainer or _trainer(module, epochs), module, train, val, epochs)
        launcher = test.trainer.strategy.launcher
        if launcher is None:
            return test.recommendation(seeds, seed)
        return Recommendation.from_dict(json.loads(launcher.launch(test.document, seeds, seed)))


def _checked(module: Any) -> LightningModule:
    """The module as ``fit`` takes it: ``torch.compile`` wraps it in another.

    Raises:
        InvalidArgument: it is none of Lightning's; the package pytorch_lightning has classes of its own.
    """
    try:
        return _maybe_unwrap_optimized(module)
    except TypeError as error:
        rule = "must be a LightningModule of lightning.pytorch, which is imported in the place of pytorch_lightning"
        raise InvalidArgument("module", rule, module) from error


class CyclicSchedule(Callback):
    """Trains under the recommended schedule, stepped after every optimizer step, instead of the module's own.

    Lightning saves it in its checkpoints and goes on with it. A low confidence, and a training that ends in the middle
    of a cycle, are logged as warnings.

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
        self._measured = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the place of whatever schedulers the module configured."""
        if self.found is None:
            raise InvalidArgument("found", "must be a recommendation or clr.current_run(...)", None)
        if isinstance(self.found, CurrentRun):
            seed_everything(self.found.seed, verbose=False)
            trainer.fit_loop.max_epochs, trainer.fit_loop.epoch_loop.max_steps = -1, self.found.steps
            if self.metric is not None:
                trainer.check_val_every_n_epoch = 1  # else there may be none after the last step
        found = conclusive(self.found) if isinstance(self.found, Recommendation) else self.found
        scheduler = found.scheduler(_only(trainer.optimizers))
        trainer.strategy.lr_scheduler_configs = [LRSchedulerConfig(scheduler, interval="step", name="clr")]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """How long the training will be is known once its loaders are."""
        if isinstance(self.found, Recommendation):
            warn_of_mid_cycle(self.found, trainer.estimated_stepping_batches)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A metric was asked for: then there was one, after the last step."""
        run = self.found
        if isinstance(run, CurrentRun) and self.metric is not None and self._measured < run.logged == run.steps:
            rule = "must be logged by the validation after the last step, but there is no validation"
            raise InvalidArgument("metric", rule, self.metric)

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
            self._measured = self.found.logged


class _Test:
    """The runs of a range test as fits of a trainer."""

    def __init__(self, trainer: Any, module: LightningModule, train: Any, val: Any, epochs: float | None) -> None:
        self.trainer, self.module, self.train, self.val = trainer, module, train, val
        self.epochs = epochs
        self.notes: dict[str, None] = {}
        self.optimizer: dict[str, Any] | None = None
        self.max_epochs = trainer.fit_loop.max_epochs if epochs is None else ceil(epochs)
        self.max_steps = trainer.max_steps if epochs is None else -1

    def recommendation(self, seeds: int, seed: int) -> Recommendation:
        """What the test finds, everything left as it was."""
        with self._left_as_it_was():
            self.curve_of(ONE_STEP)
            found = recommended(self.length, seeds, seed, self.curve_of, self.optimizer)
        return replace(found, reasons=[*found.reasons, *self.notes])

    def document(self, seeds: int, seed: int) -> str:
        """The same, to be sent by one of the strategy's processes, all of which find it."""
        return json.dumps(self.recommendation(seeds, seed).to_dict())

    def curve_of(self, run: Run) -> Curve:
        """A fit at the rates of ``run``."""
        self._back()
        trainer, recorder = self.trainer, _Fit(self, run)
        trainer.callbacks = [one for one in self._callbacks if isinstance(one, GradientAccumulationScheduler)]
        trainer.callbacks.append(recorder)
        for generator in loader_generators(self.train):
            generator.manual_seed(run.seed)
        with OwnRandomStates(run.seed, trainer.strategy.root_device):
            self._fit()
        if not recorder.seen.curve.loss:
            raise InvalidArgument("module", "must have a training_step that returns a loss for the batches of train")
        self.optimizer = recorder.seen.optimizer
        return recorder.seen.curve

    def _fit(self) -> None:
        """``Trainer.fit``, but an interrupt is not the end of the program."""
        trainer = self.trainer
        trainer.strategy._lightning_module = self.module
        trainer.state = TrainerState(fn=TrainerFn.FITTING, status=TrainerStatus.RUNNING)
        trainer.training, trainer.should_stop = True, False
        val = None if isinstance(self.train, LightningDataModule) else self.val
        try:
            trainer._fit_impl(self.module, self.train, val)
        except BaseException as error:
            trainer.state.status = TrainerStatus.INTERRUPTED
            trainer._teardown()
            if "multiple optimizers" in str(error):
                raise InvalidArgument("module", ONE, self.module) from error
            raise

    def measure(self, run: Run) -> None:
        """In a fit that has begun: how long the training will be. A run that is longer is let go on."""
        trainer = self.trainer
        each, steps = _steps(trainer)
        if self.epochs is not None and isfinite(each):
            self.length = TrainingLength(self.epochs, ceil(each))
        elif not isfinite(steps) or steps < 1:
            raise InvalidArgument("trainer", "must have max_steps where the training data have no length", steps)
        else:
            iterations = ceil(each) if isfinite(each) else int(steps)
            self.length = TrainingLength(steps / iterations, iterations)
        if run.steps > self.length.steps:
            trainer.fit_loop.max_epochs, trainer.fit_loop.epoch_loop.max_steps = -1, -1

    def _back(self) -> None:
        for holder, values in self._held:
            vars(holder).clear()
            vars(holder).update(values)
        for put_back in self._restore:
            put_back()
        trainer = self.trainer
        trainer.fit_loop = _FitLoop(trainer, None, self.max_epochs)
        trainer.fit_loop.epoch_loop = _TrainingEpochLoop(trainer, None, self.max_steps)
        trainer._loggers = [DummyLogger() for _ in trainer._loggers]
        trainer.profiler = PassThroughProfiler()
        trainer.limit_val_batches, trainer.num_sanity_val_steps = 0, 0
        trainer._callback_connector._attach_model_callbacks = lambda: None  # they save and stop
        if hasattr(trainer.precision_plugin, "scaler"):
            trainer.precision_plugin.scaler = deepcopy(trainer.precision_plugin.scaler)

    @contextmanager
    def _left_as_it_was(self) -> Iterator[None]:
        trainer, module = self.trainer, self.module
        loops: list[Any] = [trainer.validate_loop, trainer.test_loop, trainer.predict_loop]
        data = [one for one in (self.train, self.val) if isinstance(one, LightningDataModule | CombinedLoader)]
        connectors = [value for name, value in vars(trainer).items() if name.endswith("_connector")]
        holders = [
            *(trainer, trainer.strategy, trainer.precision_plugin, *connectors, *data),
            *(one for loop in loops for one in (loop, loop._data_source)),
        ]
        device, states = module.device, random_states()
        self._held = [(holder, dict(vars(holder))) for holder in holders]
        self._callbacks = list(trainer.callbacks)
        self._restore = [module_state(module), parameter_state(module.parameters()), generator_state(self.train)]
        with ExitStack() as returned:
            returned.callback(set_random_states, states)
            for put_back in self._restore:
                returned.callback(put_back)
            returned.callback(module.to, device)
            for holder, values in self._held:
                returned.callback(vars(holder).update, values)
                returned.callback(vars(holder).clear)
            yield


class _Fit(Callback):
    """What is added to a fit: rates, records, and an end."""

    def __init__(self, test: _Test, run: Run) -> None:
        self.test, self.run = test, run
        self.seen = Recorder(run)
        self._losses: list[Tensor] = []
        self._steps = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Schedulers would set rates too."""
        if not any(group["params"] for one in trainer.optimizers for group in one.param_groups):
            raise InvalidArgument("module", "must configure an optimizer of its parameters", pl_module)
        _only(trainer.optimizers)
        trainer.strategy.lr_scheduler_configs = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The length is known once the loaders are."""
        self.test.measure(self.run)
        loaders = self._val_loaders()
        if loaders:
            self.seen.metric = lambda: self._metric(trainer, pl_module, loaders)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Also for the batches that are accumulated, which changes nothing."""
        self.seen.set_rates(trainer.optimizers[0], pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step was made if Lightning counts one; its loss is the mean over the batches that had one."""
        if outputs:
            self._losses.append(outputs["loss"].detach().float() * trainer.accumulate_grad_batches)
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        loss = torch.stack(self._losses).mean() if self._losses else None
        self._losses = []
        if trainer.world_size > 1:  # every process must decide alike
            here = torch.zeros(2) if loss is None else torch.stack([loss, torch.ones_like(loss)])
            total, count = trainer.strategy.reduce(here.to(trainer.strategy.root_device), reduce_op="sum")
            loss = total / count if count else None
        self.seen.keep(None if loss is None else float(loss))
        trainer.should_stop = self.seen.ended

    def _metric(self, trainer: Trainer, module: LightningModule, loaders: list[Any]) -> float | None:
        try:
            return _loss(trainer, module, loaders, self.run.val_limit)
        except WRONG as error:
            self.seen.metric = None
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:SHOWN]}"
            self.test.notes[f"there is no validation loss: training_step does not take these batches ({said})"] = None
            return None

    def _val_loaders(self) -> list[Any]:
        given = self.test.val
        own: Any = self.test.train if isinstance(self.test.train, LightningDataModule) else self.test.module
        if given is None and type(own).val_dataloader not in (
            LightningDataModule.val_dataloader,
            LightningModule.val_dataloader,
        ):
            given = own.val_dataloader()
        if isinstance(given, Sequence):
            return list(given)
        return [] if given is None else [given]


def _loss(trainer: Trainer, module: LightningModule, loaders: list[Any], limit: int | None) -> float | None:
    """The mean of ``training_step``'s loss over the validation data, which leaves no trace."""
    back, states = module_state(module), random_states()
    module.eval()
    for one in module.modules():
        if isinstance(one, LightningModule):
            vars(one).update(log=_nothing, log_dict=_nothing)
    total, weight = 0.0, 0
    try:
        for batch, number in _batches(trainer, module, loaders, limit):
            with torch.no_grad():
                arguments = trainer.fit_loop.epoch_loop._build_kwargs({}, batch, number)  # type: ignore[arg-type]
                output: Any = trainer.strategy.training_step(*arguments.values())
            loss = output["loss"] if isinstance(output, dict) else output
            if loss is not None:
                total, weight = total + float(loss) * batch_length(batch), weight + batch_length(batch)
    finally:
        back()
        set_random_states(states)
    return total / weight if weight else None


def _batches(
    trainer: Trainer, module: LightningModule, loaders: list[Any], limit: int | None
) -> Iterator[tuple[Any, int]]:
    """Validation batches as Lightning hands them over, up to about ``limit`` examples of each loader."""
    for loader in loaders:
        seen = 0
        for number, batch in enumerate(loader):
            batch = module._on_before_batch_transfer(trainer.precision_plugin.convert_input(batch), dataloader_idx=0)
            batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
            yield batch, number
            seen += batch_length(batch)
            if limit is not None and seen >= limit:
                break


def _steps(trainer: Any) -> tuple[float, float]:
    """Optimizer steps in the first epoch and in the whole training; infinite where nobody knows."""
    batches, epochs = trainer.num_training_batches, trainer.max_epochs or -1
    changing = [one for one in trainer.callbacks if isinstance(one, GradientAccumulationScheduler)]
    if not changing or not isfinite(batches) or epochs == -1:
        return batches / trainer.accumulate_grad_batches, trainer.estimated_stepping_batches
    each = [ceil(batches / changing[0].get_accumulate_grad_batches(epoch)) for epoch in range(epochs)]
    return each[0], sum(each) if trainer.max_steps == -1 else min(sum(each), trainer.max_steps)


def _trainer(module: LightningModule, epochs: float | None) -> Trainer:
    """One that makes plain steps on the module's device."""
    kind = {"cuda": "gpu"}.get(module.device.type, module.device.type)
    return Trainer(
        max_epochs=ceil(epochs or 1),
        accelerator=kind,
        devices=[module.device.index or 0] if kind == "gpu" else 1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _only(optimizers: list[Optimizer]) -> Optimizer:
    if len(optimizers) != 1:
        raise InvalidArgument("module", ONE, len(optimizers))
    return optimizers[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning tells of its devices at every trainer, and of every fit."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _nothing(*_: Any, **__: Any) -> None:
    """Log it nowhere."""
