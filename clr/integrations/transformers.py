"""The range test on a ``transformers`` Trainer, and its schedule in that Trainer."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import copy, deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clr.commands.current_run import CurrentRun, handed_run
from clr.errors import InvalidArgument
from clr.extras import require
from clr.integrations.recommending import conclusive, recommended, warn_of_mid_cycle
from clr.integrations.recorder import Recorder
from clr.run import Curve, Run
from clr.schedules.cycles import TrainingLength
from clr.training.borrowing import optimizer_state
from clr.training.data import batch_length
from clr.training.loop import ONE_STEP
from clr.training.module_state import module_state, parameter_state
from clr.training.random_states import OwnRandomStates, random_states, set_random_states
from clr.tuning.recommendation import Recommendation

try:
    from transformers import Trainer, TrainerCallback, TrainerControl
    from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback
except ModuleNotFoundError:
    require("transformers")
    raise


def lr_bounds(trainer: Trainer, *, epochs: float | None = None, seeds: int = 3, seed: int = 0) -> Recommendation:
    """Find the bounds for ``trainer.train()``, by runs that ``trainer.train()`` makes.

    Each run is one: the Trainer's data, collator, batch sizes, accumulation, loss, clipping, precision and processes,
    and its ``model_init`` where it has one. Only the rates are the test's; callbacks are not called, and nothing is
    logged, evaluated or saved. In a distributed training every process calls this, and all find the same. Model,
    optimizer, Trainer and random states are left bit for bit as they were.

    Args:
        trainer: a ``transformers.Trainer`` with a training data set.
        epochs: length of the training to find bounds for, > 0; None: the Trainer's own, by epochs or ``max_steps``.
        seeds: most repetitions of the test, >= 1.
        seed: what their seeds are made from.

    Returns:
        The recommendation of the range test; an inconclusive one has no bounds, but reasons.

    Raises:
        InvalidArgument: a rule above is broken, or the training data have no length and ``max_steps`` is not set.
    """
    if epochs is not None:
        TrainingLength(epochs, 1)  # its rule
    if not isinstance(trainer, Trainer):
        raise InvalidArgument("trainer", "must be a transformers.Trainer", trainer)
    if trainer.train_dataset is None:
        raise InvalidArgument("trainer", "must have a train_dataset", trainer.train_dataset)
    if not any(parameter.requires_grad for parameter in trainer.model.parameters()):
        raise InvalidArgument("trainer", "must have a model with a parameter that requires a gradient", trainer.model)
    test = _Test(trainer, epochs)
    with test.left_as_it_was():
        test.curve_of(ONE_STEP)
        return recommended(test.length, seeds, seed, test.curve_of, test.optimizer)


def install(trainer: Trainer, found: Recommendation | CurrentRun | None = None, *, metric: str | None = None) -> None:
    """Let the next ``trainer.train()`` follow the recommended schedule, a step of it for every optimizer step.

    That a recommendation has low confidence, and why, and that the training ends in the middle of a cycle, are logged
    as warnings.

    Where ``clr tune`` or a service started the program, it carries out that run instead: its steps, its rates, its
    seed (seed the model's own start by ``clr.current_run().seed``). It logs and reports every step, evaluates where the
    run asks for it, and saves nothing on the way.

    Args:
        trainer: whose model has not been trained yet.
        found: what ``lr_bounds`` recommends, any other conclusive recommendation, or ``clr.current_run(...)``. None:
            the run that the program was started for.
        metric: of a run, the name of what ``trainer.evaluate()`` returns, to be judged by, such as "eval_loss"; None:
            the training loss is, and nothing is evaluated.

    Raises:
        InvalidArgument: the recommendation is inconclusive, or there is nothing to follow; the Trainer keeps the
            schedule it has.
    """
    found = handed_run() or found
    if found is None:
        raise InvalidArgument("found", "must be a recommendation or clr.current_run(...)", None)
    before = trainer.optimizer
    try:
        followed = conclusive(found) if isinstance(found, Recommendation) else found
        scheduler: Any = followed.scheduler(trainer.create_optimizer())
        trainer.lr_scheduler = scheduler
    except BaseException:
        trainer.optimizer = before
        raise
    if isinstance(found, Recommendation):
        trainer.add_callback(_Length(found))
    if isinstance(found, CurrentRun):
        args: Any = trainer.args
        args.max_steps, args.seed, args.data_seed = found.steps, found.seed, found.seed
        args.logging_strategy, args.logging_steps, args.logging_nan_inf_filter = "steps", 1, False
        args.eval_strategy, args.save_strategy, args.load_best_model_at_end = "no", "no", False
        trainer.add_callback(_Reports(found, metric))


class _Length(TrainerCallback):  # type: ignore[misc]  # its types are not read
    """Looks how long the training is, once that is known."""

    def __init__(self, found: Recommendation) -> None:
        self.found = found

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        warn_of_mid_cycle(self.found, state.max_steps)


class _Reports(TrainerCallback):  # type: ignore[misc]  # its types are not read
    """Tells a run what the Trainer logs."""

    def __init__(self, run: CurrentRun, metric: str | None) -> None:
        self.run, self.metric = run, metric

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_evaluate = self.metric is not None and self.run.evaluates(state.global_step - 1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        if logs is not None and "loss" in logs:
            self.run.log(loss=logs["loss"], step=state.global_step)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Mapping[str, float] | None = None, **_: Any
    ) -> None:
        if metrics is not None and self.metric is not None:
            if self.metric not in metrics:
                known = ", ".join(metrics)
                raise InvalidArgument("metric", f"must be the name of what evaluate() returns ({known})", self.metric)
            self.run.log(metric=metrics[self.metric])


class _Test:
    """The runs of a range test as trainings of a Trainer."""

    length: TrainingLength
    optimizer: dict[str, Any] | None

    def __init__(self, trainer: Trainer, epochs: float | None) -> None:
        self.trainer, self.epochs = trainer, epochs

    def curve_of(self, run: Run) -> Curve:
        """A training at the rates of ``run``."""
        self._back()
        trainer, steps = self.trainer, _Steps(self, run)
        trainer.args = self._args(run)
        trainer.control = TrainerControl()
        trainer.callback_handler = CallbackHandler(
            [steps], trainer.model, trainer.processing_class, trainer.optimizer, None
        )
        vars(trainer).update(training_step=steps.training_step, create_scheduler=steps.create_scheduler)
        with OwnRandomStates(run.seed, trainer.args.device):
            trainer.train()
        if not steps.seen.curve.loss:
            raise InvalidArgument("trainer", "must have training data", trainer.train_dataset)
        self.optimizer = steps.seen.optimizer
        return steps.seen.curve

    def _args(self, run: Run) -> Any:
        args = copy(self._held[0][1]["args"])
        args.seed, args.data_seed = run.seed, None if args.data_seed is None else run.seed
        args.eval_on_start = args.load_best_model_at_end = args.push_to_hub = False
        if self.epochs is not None:
            args.num_train_epochs, args.max_steps = self.epochs, -1
        loader = self.trainer.get_train_dataloader()
        try:
            _, iterations, *_, steps = self.trainer.set_initial_training_values(args, loader)
        except ValueError as error:
            rule = "must be set where the training data have no length"
            raise InvalidArgument("max_steps", rule, args.max_steps) from error
        self.length = TrainingLength(self.epochs or steps / iterations, iterations)
        if run.steps > steps:
            args.max_steps = run.steps
        return args

    def _back(self) -> None:
        for holder, values in self._held:
            vars(holder).clear()
            vars(holder).update({name: list(value) if type(value) is list else value for name, value in values.items()})
        for put_back in self._restore:
            put_back()
        if (scaler := getattr(self.trainer.accelerator, "scaler", None)) is not None:
            self.trainer.accelerator.scaler = deepcopy(scaler)

    @contextmanager
    def left_as_it_was(self) -> Iterator[None]:
        """Whatever runs do in the block, afterwards everything is as it was before."""
        trainer = self.trainer
        holders = [trainer, trainer.accelerator]
        self._held = [(holder, copy(vars(holder))) for holder in holders]
        self._held[1] = (
            trainer.accelerator,
            {name: list(value) if type(value) is list else value for name, value in self._held[1][1].items()},
        )
        states = random_states()
        model: nn.Module = trainer.model
        self._restore: list[Callable[[], None]] = [module_state(model), parameter_state(model.parameters())]
        if isinstance(trainer.optimizer, Optimizer):
            self._restore.append(optimizer_state(trainer.optimizer))
        with ExitStack() as returned:
            returned.callback(set_random_states, states)
            for put_back in self._restore:
                returned.callback(put_back)
            for holder, values in self._held:
                returned.callback(vars(holder).update, values)
                returned.callback(vars(holder).clear)
            yield


class _Steps(DefaultFlowCallback):  # type: ignore[misc]
    """What is added to a training: rates, records, and an end."""

    def __init__(self, test: _Test, run: Run) -> None:
        self.test, self.run, self.trainer = test, run, test.trainer
        self.seen = Recorder(run, self._metric if self.trainer.eval_dataset is not None else None)
        self._step = self.trainer.training_step
        self._losses: list[Tensor] = []

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """The Trainer's, whose loss is kept: a batch's share in the mean of its step."""
        loss: Tensor = self._step(*args, **kwargs)
        self._losses.append(loss.detach().float())
        return loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> "_NoSchedule":
        """A schedule would set rates too."""
        self.trainer.lr_scheduler = none = _NoSchedule()
        return none

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.seen.set_rates(self.trainer.optimizer, self.trainer.model)

    def on_step_end(self, _args: Any, _state: Any, control: TrainerControl, **_: Any) -> None:
        loss = self.trainer.accelerator.reduce(torch.stack(self._losses).sum(), "mean")
        self._losses = []
        self.seen.keep(float(loss))
        control.should_training_stop = self.seen.ended

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Nothing is evaluated or saved."""

    def _metric(self) -> float | None:
        """The mean of ``compute_loss`` over the evaluation data, which leaves no trace."""
        model = self.trainer.model
        back, states = module_state(model), random_states()
        model.eval()
        try:
            return self._loss_of_evaluation(model)
        finally:
            back()
            set_random_states(states)

    @torch.no_grad()
    def _loss_of_evaluation(self, model: nn.Module) -> float | None:
        trainer = self.trainer
        data = trainer.eval_dataset
        total = torch.zeros(2, device=trainer.args.device)
        for name in data if isinstance(data, Mapping) else [None]:
            seen = 0
            for batch in trainer.get_eval_dataloader(name):
                size = batch_length(batch)
                loss = _loss(trainer, model, batch)
                total += torch.stack([loss.float() * size, torch.full_like(loss, size).float()])
                seen += size
                if self.run.val_limit is not None and seen >= self.run.val_limit:
                    break
        loss, weight = trainer.accelerator.reduce(total, "sum").tolist()
        return loss / weight if weight else None


class _NoSchedule:
    """Leaves the rates to the test."""

    def step(self) -> None:
        pass

    def get_last_lr(self) -> list[float]:
        return [0.0]


def _loss(trainer: Trainer, model: nn.Module, batch: Any) -> Tensor:
    with trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(model, trainer._prepare_inputs(batch))
    return loss if isinstance(loss, Tensor) else loss[0]
