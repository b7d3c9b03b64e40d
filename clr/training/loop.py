"""The one training loop. Range test, trial and confirmation are this loop under different policies."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from clr.errors import InvalidArgument
from clr.run import Curve, Plan, Point, Result, Run, record
from clr.schedules.cycles import rate_of
from clr.schedules.plateau import Plateau
from clr.schedules.torch_scheduler import multipliers
from clr.training.checkpoint import Checkpoint
from clr.training.data import Batch, TrainingBatches, described, no_batch, placed, validation_batches
from clr.training.divergence import Explosion
from clr.training.first_step import WRONG, check_batch, check_gradients, fail, first_loss
from clr.training.module_state import attributes, module_state, set_attributes
from clr.training.optimizers import self_tuning
from clr.training.processes import averaged, training_group
from clr.training.random_states import OwnRandomStates, random_states, set_random_states
from clr.training.task import Task, model_loss

SYNC_STEPS = 16
"""Losses are read from the device at least this often: rarely enough not to stall a GPU, often enough to stop soon
after a loss is no longer finite."""

SCORED_SHARE = 1.5
"""Most validation examples scored at a point, over those trained on since the last, where a run limits them: scoring
one takes a third of what training on it does, so the points take half of the training's time at most."""

NOTHING = nullcontext()

ONE_STEP = Run(policy="fixed", base_lr=1e-7, max_lr=1e-7, step_size_up=1, steps=1, seed=0, evaluate_every=1)
"""What shows whether a task can be trained."""

MOST_SKIPS = 40
"""A scaler that skips this many updates in a row has halved its scale from 2**16 to 2**-24, the smallest number of
fp16: the gradients are not finite at any scale."""


TELL_EVERY_S = 1.0
"""Whoever follows a run hears of it this often."""


def train(
    task: Task, run: Run, checkpoint: Checkpoint | None = None, tell_every_s: float = math.inf
) -> Iterator[Point]:
    """Train, yielding a point every ``run.evaluate_every`` steps and at the end; stop pulling to stop training.

    The caller's random states are untouched between and after points. A loss that is no longer finite ends the run
    with a point that says so.

    Args:
        task: what to train.
        run: how.
        checkpoint: a run that was broken off yields the points it had and goes on from there, bit for bit as if it had
            never been (on a CPU). Without effect where the place in the training data cannot be found again: an
            iterable of the caller's own, or a sampler other than torch's random and sequential ones.
        tell_every_s: after so many seconds without one there is a point without a metric, > 0.

    Raises:
        InvalidArgument: a rule of ``run`` is broken.
    """
    device = device_of(task, run)
    with OwnRandomStates(run.seed, device) as own:
        for point in _points(RunUnderWay(task, run, device), checkpoint, tell_every_s):
            own.leave()
            yield point
            own.enter()


def device_of(task: Task, run: Run) -> torch.device:
    """The device to train on, where the run's numbers keep their rules.

    Raises:
        InvalidArgument: they do not, or this machine has no such device.
    """
    for field in ("steps", "step_size_up", "evaluate_every"):
        if getattr(run, field) < 1:
            raise InvalidArgument(field, "must be at least 1", getattr(run, field))
    device = torch.device(task.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        said = str(error).partition("\n")[0]
        raise InvalidArgument("device", f"must be one that this machine has ({said})", task.device) from error
    return device


def on_device(task: Task) -> Task:
    """The same task, whose resident data lie on its device once for all runs, where they fit there."""
    device = device_of(task, ONE_STEP)
    return task.changed(train=placed(task.train, device), val=placed(task.val, device))


def _points(training: "RunUnderWay", checkpoint: Checkpoint | None, tell_every_s: float = math.inf) -> Iterator[Point]:
    if checkpoint is not None and not training.batches.has_places:
        checkpoint = None
    done = training.load(checkpoint) if checkpoint is not None else []
    yield from done
    if training.group is not None:
        tell_every_s = math.inf  # each process has a clock of its own, and all of them must record the same
    tell_at = time.monotonic() + tell_every_s
    while not training.ended:
        point = training.advance(tell_at)
        if point is not None:
            yield point
            tell_at = time.monotonic() + tell_every_s
        if checkpoint is not None:
            if point is not None:
                record(done, point, training.run.steps)
            if checkpoint.is_due and not training.ended:
                training.save(checkpoint, done)
    if checkpoint is not None:
        checkpoint.remove()


class RunUnderWay:
    """One run as it stands: its model, its optimizer, its place in the data, what it recorded since its last point.

    Args:
        task, run: what is trained, and how.
        device: where.
        apart: whether other runs of the task are under way at the same time.
    """

    def __init__(self, task: Task, run: Run, device: torch.device, apart: bool = False) -> None:
        self.run, self.device = run, device
        made = task.make(device)
        self.model, self.optimizer = deepcopy(made) if apart and task.lends else made
        self.task = task = replace(task, train=placed(task.train, device), val=placed(task.val, device))
        self.network = _compiled(self.model, task.compile)
        self.group = training_group(self.model)
        if run.optimizer is not None:
            self.optimizer = self_tuning(run.optimizer, self.optimizer)
        self._averaging("train")
        self.multipliers = multipliers(self.optimizer.param_groups)
        self.scaler = torch.amp.GradScaler(device.type, enabled=task.precision == "fp16")
        self.batches = TrainingBatches(task.train, task.batch_size, run.seed, device, task.collate, task.workers)
        self.rate = rate_of(run)
        self.plateau = None if run.patience is None else Plateau(task.score[1], run.patience)
        self.explosion = Explosion(run.explode) if run.explode is not None else None
        self.val_limit = run.val_limit
        if self.val_limit is not None:
            trained = run.evaluate_every * task.accumulate * task.batch_size
            self.val_limit = max(1, min(self.val_limit, int(SCORED_SHARE * trained)))
        self.evaluate: Callable[[], float | None] = partial(evaluate, task, self.network, device, self.val_limit)
        self.step, self.ended = 0, False
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.unjudged: list[float] = []  # by whether it explodes, which is looked at every ``SYNC_STEPS`` steps
        if not self.model.training:  # else a layer in eval mode was put there on purpose
            self.model.train()

    def advance(self, tell_at: float) -> Point | None:
        """Train until losses are read from the device; the point, where one is due by then, or by the clock."""
        unread: list[Tensor] = []
        late = False
        while not late and not self.reads(len(unread)):
            for group, rate in zip(self.optimizer.param_groups, self.next_rates(), strict=True):
                group["lr"] = rate
            unread.append(self._update())
            self.step += 1
            late = time.monotonic() >= tell_at
        losses = torch.stack(unread).float().tolist() if len(unread) > 1 else [unread[0].float().item()]
        return self.read(losses, late)

    def next_rates(self) -> list[float]:
        """The rate of each parameter group in the next step, which is recorded."""
        lr = self.rate(self.step) * (1.0 if self.plateau is None else self.plateau.factor)
        self.rates.append(lr)
        return [lr * factor for factor in self.multipliers]

    def reads(self, unread: int) -> bool:
        """Whether the losses of the last so many steps must be read: for a point, or to see whether they explode."""
        return unread > 0 and (self._is_due or len(self.unjudged) + unread == SYNC_STEPS)

    @property
    def _is_due(self) -> bool:
        return self.step % self.run.evaluate_every == 0 or self.step == self.run.steps

    def read(self, losses: list[float], late: bool = False) -> Point | None:
        """Take the losses of the last steps; the point, where one is due after them or the run ends, or it is late."""
        point = self._read(losses, self._is_due)
        return self._point(self.step, None, diverged=False) if point is None and late else point

    def _read(self, losses: list[float], due: bool) -> Point | None:
        if not math.isfinite(sum(losses)):
            bad = next(i for i, loss in enumerate(losses) if not math.isfinite(loss))
            self.losses += losses[: bad + 1]
            return self._point(self.step - len(losses) + bad + 1, None, diverged=True)
        self.losses += losses
        self.unjudged += losses
        if due or len(self.unjudged) == SYNC_STEPS:
            judged, self.unjudged = self.unjudged, []
            if self.explosion is not None and self.explosion.after(judged):
                return self._point(self.step, None, diverged=True)
        if not due:
            return None
        metric = self._metric() if self.task.val is not None else None
        if self.plateau is not None and metric is not None:
            self.plateau.after(metric)
        diverged = metric is not None and not math.isfinite(metric)
        return self._point(self.step, None if diverged else metric, diverged)

    def _metric(self) -> float | None:
        self._averaging("eval")
        metric = self.evaluate()
        self._averaging("train")
        if metric is not None and self.group is not None:
            metric = averaged(torch.tensor(metric, device=self.device), self.group).item()
        return metric

    def _point(self, step: int, metric: float | None, diverged: bool) -> Point:
        point = Point(step, self.rates[: len(self.losses)], self.losses, metric, diverged)
        self.rates, self.losses = [], []
        self.ended = diverged or step == self.run.steps
        return point

    def _averaging(self, mode: str) -> None:
        """Tell an optimizer that trains one set of weights and is judged by another which of them is wanted."""
        getattr(self.optimizer, mode, lambda: None)()

    def _update(self) -> Tensor:
        """One optimizer step; the mean loss before it. What a scaler skips is no step: it is tried on other batches."""
        if not self.scaler.is_enabled():  # a short step's hundredth
            loss = self.backpropagate(self.batches)
            self.optimizer.step()
            return loss
        for _ in range(MOST_SKIPS):
            scaled = self._try_update()
            if scaled is not None:
                return scaled
        return torch.full((), math.inf, device=self.device)

    def _try_update(self) -> Tensor | None:
        """The mean loss before the step, detached, on the device; None: the scaler skipped it."""
        loss, scaler = self.backpropagate(self.batches), self.scaler
        before = scaler.get_scale()
        scaler.step(self.optimizer)
        scaler.update()
        skipped = scaler.get_scale() < before
        return None if skipped and loss.isfinite() else loss

    def backpropagate(self, batches: Iterator[Batch]) -> Tensor:
        """Leave gradients of the mean loss over ``accumulate`` batches, clipped; that loss, detached, on the device."""
        task, scaler = self.task, self.scaler
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for _ in range(task.accumulate):
            batch = next(batches)
            with _autocast(task, self.device):
                if self.step:
                    loss = task.loss(*task.forward(self.network, batch))
                else:
                    loss = first_loss(task, self.network, batch)
            losses.append(loss.detach())
            if task.accumulate > 1:  # a quotient by 1 is a node of the graph all the same
                loss = loss / task.accumulate
            scaler.scale(loss).backward()
        if self.step == 0:
            check_gradients(self.optimizer)
        if task.clip_norm is not None or task.clip_value is not None:
            scaler.unscale_(self.optimizer)
            trained = [one for group in self.optimizer.param_groups for one in group["params"]]
            if task.clip_value is not None:
                nn.utils.clip_grad_value_(trained, task.clip_value)
            if task.clip_norm is not None:
                nn.utils.clip_grad_norm_(trained, task.clip_norm)
        return averaged(losses[0] if task.accumulate == 1 else torch.stack(losses).float().mean(), self.group)

    def save(self, checkpoint: Checkpoint, done: list[Point]) -> None:
        """Write all that the rest of the run depends on, and the points it has yielded."""
        state = {
            "points": [point.to_dict() for point in done],
            "recorded": (self.step, self.rates, self.losses),
            "unjudged": self.unjudged,
            "explosion": None if self.explosion is None else vars(self.explosion),
            "plateau": None if self.plateau is None else self.plateau.state_dict(),
            "tensors": _tensors(self.model),
            "attributes": attributes(self.model),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "place": self.batches.place,
            "random": random_states(),
        }
        checkpoint.save(self.run.to_dict(), self.device, state)

    def load(self, checkpoint: Checkpoint) -> list[Point]:
        """Go on from where ``checkpoint`` was written, if it was for this run; the points yielded until then."""
        state = checkpoint.load(self.run.to_dict(), self.device)
        if state is None:
            return []
        tensors = _tensors(self.model)
        if _shapes(tensors) != _shapes(state["tensors"]):  # the task's own code is another now
            return []
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(state["tensors"][name])
        set_attributes(self.model, state["attributes"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.rates, self.losses = state["recorded"]
        self.unjudged = state["unjudged"]
        if self.explosion is not None:
            vars(self.explosion).update(state["explosion"])
        if self.plateau is not None:
            self.plateau.load_state_dict(state["plateau"])
        self.batches.go_to(state["place"])
        set_random_states(state["random"])
        checkpoint.restored = len(state["points"])
        return [Point.from_dict(point) for point in state["points"]]


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, also buffers that are not persistent."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _shapes(tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _compiled(model: nn.Module, how: bool | str) -> nn.Module:
    if how is False:
        return model
    backend = "inductor" if how is True else how
    return torch.compile(model, backend=backend)  # type: ignore[return-value]


def evaluate(task: Task, model: nn.Module, device: torch.device, limit: int | None = None) -> float | None:
    """Metric over the first ``limit`` validation examples (None: all); None when the task has no validation data.

    It leaves no trace: a state that the model carries from batch to batch, buffers, modes and random states go on as
    they were.
    """
    if task.val is None:
        return None
    states = random_states()
    try:
        total, weight = total_score(task, model, device, limit)
        return total.item() / weight
    finally:
        set_random_states(states)


@torch.no_grad()
def total_score(task: Task, model: nn.Module, device: torch.device, limit: int | None) -> tuple[Tensor, int]:
    """The same as a sum, on the device, and what to divide it by; random states may have gone on."""
    _, _, score = task.score
    back = module_state(model)
    model.eval()
    try:
        total, weight = torch.zeros((), device=device), 0
        for batch, size in validation_batches(task.val, max(task.batch_size, 256), limit, device, task.collate):
            with _autocast(task, device):
                total += _one_number(_scored(task, model, batch, score), device) * size
            weight += size
    finally:
        back()
    if weight == 0:
        raise no_batch("val", task.val, "must hold at least one example")
    return total, weight


def _scored(task: Task, model: nn.Module, batch: Batch, score: Callable[[Any, Any], Any]) -> Any:
    check_batch(task, "val", batch)
    try:
        output, target = task.forward(model, batch)
    except WRONG as error:
        fail(error, "val", f"must have batches that the model takes in eval mode, not {described(batch)}")
    try:
        return score(output, target)
    except InvalidArgument as error:
        if score is model_loss:
            raise InvalidArgument("val", "must be None where the model has no loss in eval mode", output) from error
        raise
    except WRONG as error:
        field = "loss" if score is task.loss else "metric"
        fail(error, field, f"must score the output, {described(output)}, beside the target, {described(target)}")


def _one_number(value: Any, device: torch.device) -> Tensor:
    try:
        return torch.as_tensor(value, device=device).float().reshape(())
    except (TypeError, RuntimeError):
        raise InvalidArgument("metric", "must return one number, the mean over the batch", value) from None


def _autocast(task: Task, device: torch.device) -> Any:
    if task.precision == "fp32":
        return NOTHING
    return torch.autocast(device.type, torch.bfloat16 if task.precision == "bf16" else torch.float16)


def curve_of(task: Task, run: Run) -> Curve:
    """Train to the end of ``run`` and return all that it recorded; nobody draws random numbers between its points."""
    device = device_of(task, run)
    with OwnRandomStates(run.seed, device):
        return Curve.of(_points(RunUnderWay(task, run, device), None))


def execute(task: Task, plan: Plan[Result]) -> Result:
    """Carry out a plan here, one run after the other."""
    return carry_out(plan, partial(curve_of, task))


def carry_out(plan: Plan[Result], curve_of: Callable[[Run], Curve]) -> Result:
    """Carry out a plan with whatever makes a run.

    A plan that asks for none says nothing before one step was made: it might be of what cannot be trained.
    """
    curves: list[Curve] | None = None  # as for any generator, what is sent first
    while True:
        try:
            runs = plan.send(curves)  # type: ignore[arg-type]
        except StopIteration as stop:
            if curves is None:
                curve_of(ONE_STEP)
            result: Result = stop.value
            return result
        curves = [curve_of(run) for run in runs]
