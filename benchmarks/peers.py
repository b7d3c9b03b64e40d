"""Other tools, each through its own released code with its own defaults; fastai's rules by their formulas.

A peer is ``peer(task, seed)`` -> (rate, optimizer steps spent). Peers know nothing of ``lr_mult``: where a task has
groups, they give all the same rate. Logs, bars and figures are kept away from the screen.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from clr.run import Run
from clr.training.loop import curve_of
from clr.training.task import Task

Array = NDArray[np.float64]


class Counted:
    """A loss function that counts its calls, one a step."""

    def __init__(self, loss: Callable[[Any, Any], Any]) -> None:
        self.loss, self.steps = loss, 0

    def __call__(self, output: Any, target: Any) -> Any:
        self.steps += 1
        return self.loss(output, target)


def fresh(task: Task, seed: int) -> tuple[nn.Module, Optimizer, DataLoader[Any]]:
    """Model, optimizer and a shuffling loader, all by ``seed``; the loader indexes by whole batches, for speed."""
    torch.manual_seed(seed)
    model = task.model().to(task.device)
    data = TensorDataset(*task.train)
    batches = BatchSampler(RandomSampler(data), task.batch_size, drop_last=True)
    return model, task.optimizer(task.groups(model)), DataLoader(data, sampler=batches, batch_size=None)


def torch_lr_finder(task: Task, seed: int) -> tuple[float, int]:
    """torch-lr-finder's README: from 1e-7 to 10 in 100 steps, its own suggestion from the plot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    finder, steps = torch_lr_finder_ramp(task, *fresh(task, seed), start_lr=1e-7, end_lr=10, num_iter=100)
    with redirect_stdout(StringIO()):
        _, rate = finder.plot(ax=pyplot.figure().subplots(), suggest_lr=True)
    pyplot.close("all")
    return float(rate), steps


def torch_lr_finder_ramp(
    task: Task, model: nn.Module, optimizer: Optimizer, loader: Any, **ramp: Any
) -> tuple[Any, int]:
    """The finder after its ramp, and the steps that took."""
    from torch_lr_finder import LRFinder

    loss = Counted(task.loss)
    finder = LRFinder(model, optimizer, loss, device=task.device)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        finder.range_test(loader, **ramp)
    return finder, loss.steps


def lightning(task: Task, seed: int) -> tuple[float, int]:
    """Lightning's ``Tuner.lr_find``, all defaults."""
    finder, steps = lightning_ramp(task, *fresh(task, seed))
    rate = finder.suggestion()
    if rate is None:
        raise ValueError("it suggests nothing")
    return float(rate), steps


def lightning_ramp(task: Task, model: nn.Module, _: Optimizer, loader: Any, **ramp: Any) -> tuple[Any, int]:
    """The finder after its ramp, and the steps that took."""
    import lightning.pytorch as pl
    from lightning.pytorch.tuner import Tuner

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    loss = Counted(task.loss)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.lr = model, 1e-3

        def training_step(self, batch: Any, _: int) -> Any:
            return loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Optimizer:
            return task.optimizer(task.groups(self.net))

    with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()):
        trainer = pl.Trainer(
            accelerator="gpu" if str(task.device).startswith("cuda") else "cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        return Tuner(trainer).lr_find(Module(), train_dataloaders=loader, **ramp), loss.steps


def ignite(task: Task, seed: int) -> tuple[float, int]:
    """ignite's ``FastaiLRFinder``: one epoch, from the rate of ignite's own notebook, 3e-4."""
    model, optimizer, loader = fresh(task, seed)
    for group in optimizer.param_groups:
        group["lr"] = 3e-4
    finder, steps = ignite_ramp(task, model, optimizer, loader)
    rate: Any = finder.lr_suggestion()
    return float(np.max(rate)), steps  # of several groups it names each one's, all of them alike


def ignite_ramp(task: Task, model: nn.Module, optimizer: Optimizer, loader: Any, **ramp: Any) -> tuple[Any, int]:
    """The finder after its ramp, and the steps that took."""
    from ignite.engine import create_supervised_trainer
    from ignite.handlers import FastaiLRFinder

    logging.getLogger("ignite").setLevel(logging.ERROR)
    loss = Counted(task.loss)
    trainer = create_supervised_trainer(model, optimizer, loss, device=task.device)
    trainer.logger.setLevel(logging.ERROR)
    finder = FastaiLRFinder()
    attach = finder.attach(trainer, to_save={"model": model, "optimizer": optimizer}, **ramp)
    with warnings.catch_warnings(action="ignore"), attach as attached:  # that the loss did not diverge
        attached.run(loader)
    return finder, loss.steps


FASTAI_STEPS = 100


def fastai(rule: Callable[[Array, Array], float]) -> Callable[[Task, int], tuple[float, int]]:
    """fastai's ``lr_find``: 100 steps from 1e-7 towards 10, losses smoothed, then ``rule``."""

    def peer(task: Task, seed: int) -> tuple[float, int]:
        last = 1e-7 * (10 / 1e-7) ** ((FASTAI_STEPS - 1) / FASTAI_STEPS)
        run = Run(
            policy="exponential_ramp",
            base_lr=1e-7,
            max_lr=last,
            step_size_up=FASTAI_STEPS,
            steps=FASTAI_STEPS,
            seed=seed,
            evaluate_every=FASTAI_STEPS,
        )
        curve = curve_of(replace(task, val=None), run)
        loss = fastai_record(curve.loss)
        lr = np.geomspace(1e-7, last, FASTAI_STEPS)[: len(loss)]
        first, end = FASTAI_STEPS // 10, len(loss) - 5
        read = np.flatnonzero(np.isfinite(loss[first:end]))  # what is not finite comes last
        return rule(lr[first:end][read], loss[first:end][read]), len(loss)

    return peer


def fastai_record(losses: list[float]) -> Array:
    """Exponential mean with beta 0.98, its bias at the start removed; cut off after the first above 4 times the least.

    Without such a one it has 100 entries, NaN from the first loss that is not finite.
    """
    mean, least, record = 0.0, np.inf, []
    for step, loss in enumerate(losses, 1):
        mean = 0.98 * mean + 0.02 * loss
        record.append(mean / (1 - 0.98**step))
        least = min(least, record[-1])
        if record[-1] > 4 * least:
            return np.array(record)
    return np.array(record + [np.nan] * (FASTAI_STEPS - len(record)))


def valley(lr: Array, loss: Array) -> float:
    """Halfway down the longest falling subsequence: half of it beyond its first third, counted back from its end."""
    longest: list[int] = []
    for i, value in enumerate(loss):
        longest.append(1 + max((longest[j] for j in range(i) if loss[j] > value), default=0))
    end = int(np.argmax(longest))
    length = longest[end] if end > 0 else 0
    return float(lr[end - length + int(length / 3) + int(length / 6)])


def slide(lr: Array, loss: Array, apart: int = 15, least: float = 0.005) -> float:
    """From the end to the left, as long as the gradient differs from that ``apart`` steps further on."""
    gradient = np.gradient(loss)
    rate = lr[len(lr) - 1 - apart]
    for left in range(len(lr) - 1 - apart, -1, -1):
        if abs(gradient[left + apart] - gradient[left]) <= least:
            break
        rate = lr[left]
    return float(rate)


def minimum(lr: Array, loss: Array) -> float:
    """A tenth of the rate at the least loss."""
    return float(lr[np.argmin(loss)] / 10)


def steep(lr: Array, loss: Array) -> float:
    """Where the loss falls most per logarithm of the rate."""
    return float(lr[np.argmin(np.diff(loss) / np.diff(np.log(lr)))])


PEERS: dict[str, Callable[[Task, int], tuple[float, int]]] = {
    "torch_lr_finder": torch_lr_finder,
    "lightning": lightning,
    "ignite": ignite,
    **{f"fastai_{rule.__name__}": fastai(rule) for rule in (valley, slide, minimum, steep)},
}
