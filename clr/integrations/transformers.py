"""The range test on a ``transformers`` Trainer, and its schedule in that Trainer."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from typing import Any

from torch import Tensor, nn
from torch.utils.data import IterableDataset, Subset

from clr.commands.current_run import CurrentRun, handed_run
from clr.errors import InvalidArgument
from clr.extras import require
from clr.integrations.borrowing import recommended
from clr.schedules.cycles import TrainingLength
from clr.training.data import Batch
from clr.training.random_states import random_states, set_random_states
from clr.tuning.recommendation import Recommendation

try:
    from transformers import Trainer, TrainerCallback
except ModuleNotFoundError:
    require("transformers")
    raise


def lr_bounds(trainer: Trainer, *, epochs: float | None = None, seeds: int = 3, seed: int = 0) -> Recommendation:
    """Find the bounds for ``trainer.train()`` by the LR range test on the Trainer's own model, data and optimizer.

    The loss is ``trainer.compute_loss``; collator, batch size, accumulation, clipping and mixed precision are the
    Trainer's. Model, optimizer, Trainer and random states are left bit for bit as they were.

    Args:
        trainer: a ``transformers.Trainer`` with a training data set.
        epochs: length of the training to find bounds for, > 0; None: the Trainer's own, by epochs or ``max_steps``.
        seeds: most repetitions of the test, >= 1.
        seed: what their seeds are made from.

    Returns:
        The recommendation of the range test; an inconclusive one has no bounds, but reasons.

    Raises:
        InvalidArgument: a rule above is broken.
    """
    args = trainer.args
    with _left_as_it_was(trainer):
        train = trainer.get_train_dataloader()
        val = trainer.get_eval_dataloader() if trainer.eval_dataset is not None else None
        iterations = ceil(len(train) / args.gradient_accumulation_steps)
        if epochs is None:
            epochs = args.max_steps / iterations if args.max_steps > 0 else args.num_train_epochs
        return recommended(
            TrainingLength(epochs, iterations),
            seeds,
            seed,
            model=trainer.model,
            optimizer=trainer.create_optimizer(),
            train=_examples(train),
            val=None if val is None else _examples(val),
            forward=lambda model, batch: (_loss(trainer, model, batch), None),
            loss=lambda loss, _: loss,
            batch_size=train.batch_size or 1,
            collate=train.collate_fn,
            accumulate=args.gradient_accumulation_steps,
            clip_norm=args.max_grad_norm or None,
            precision="bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        )


def install(trainer: Trainer, found: Recommendation | CurrentRun | None = None, *, metric: str | None = None) -> None:
    """Let the next ``trainer.train()`` follow the recommended schedule, step by step.

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
        scheduler: Any = found.scheduler(trainer.create_optimizer())
        trainer.lr_scheduler = scheduler
    except BaseException:
        trainer.optimizer = before
        raise
    if isinstance(found, CurrentRun):
        args: Any = trainer.args
        args.max_steps, args.seed, args.data_seed = found.steps, found.seed, found.seed
        args.logging_strategy, args.logging_steps, args.logging_nan_inf_filter = "steps", 1, False
        args.eval_strategy, args.save_strategy, args.load_best_model_at_end = "no", "no", False
        trainer.add_callback(_Reports(found, metric))


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


def _loss(trainer: Trainer, model: nn.Module, batch: Batch) -> Tensor:
    inputs = dict(batch) if isinstance(batch, Mapping) else batch  # the Trainer takes the labels out of it
    loss = trainer.compute_loss(model, inputs)
    return loss if isinstance(loss, Tensor) else loss[0]


def _examples(loader: Any) -> Any:
    """The loader's examples, which the run's own seed shuffles; the loader where that knows its batches alone."""
    data = loader.dataset
    return loader if isinstance(data, IterableDataset) else Subset(data, range(len(data)))


@contextmanager
def _left_as_it_was(trainer: Trainer) -> Iterator[None]:
    """The optimizer and loaders that the test makes are not kept, nor the random numbers drawn for them."""
    optimizer, states = trainer.optimizer, random_states()
    prepared = list(trainer.accelerator._dataloaders)  # it remembers every loader that was ever made
    try:
        yield
    finally:
        trainer.optimizer, trainer.accelerator._dataloaders = optimizer, prepared
        set_random_states(states)
