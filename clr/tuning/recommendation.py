"""The recommendation: bounds, stepsize, evidence, and the bytes a user pastes."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from clr.errors import InvalidArgument
from clr.range_tests.bounds import Bounds, Confidence
from clr.schedules.cycles import Candidate
from clr.trials.baselines import did_better
from clr.tuning import formats

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

log = logging.getLogger(__name__)

Source = Literal["range_test", "search", "confirm"]

PROVISIONAL = "provisional: the range test goes on"
"""The first reason of a recommendation that is made before the range test has ended."""

TORCH_MODES = {"triangular": "triangular", "triangular2": "triangular2", "exp_range_amplitude": "exp_range"}
"""What torch calls the policies it has. Its exp_range is not the paper's."""

SCHEDULE = (
    "base_lr",
    "max_lr",
    "ratio",
    "stepsize",
    "step_size_up",
    "step_size_down",
    "stepsize_multiplier",
    "gamma",
)
"""What a recommendation takes over from a proposal; each is None without one."""

PASTE = """\
import {module}

{told}
scheduler = {function}(
    optimizer,
{arguments}
)
# call scheduler.step() after every optimizer.step(); train for whole cycles of {cycle} steps
"""


@dataclass(frozen=True)
class Evidence:
    """Runs behind a recommendation, all at the same number of steps.

    Args:
        metric, direction: what is compared, and whether larger is better.
        epochs: length of each run.
        seeds: runs per name, on seeds that no earlier stage used.
        runs: name, highest rate, mean and std over the seeds, and the values.
        verdict: the paired difference with its standard error, in words.
    """

    metric: str
    direction: str
    epochs: float
    seeds: int
    runs: list[dict[str, Any]]
    verdict: str


@dataclass(frozen=True)
class SpentCost:
    """Optimizer steps and seconds spent so far, and the steps relative to one training."""

    steps: int
    seconds: float
    relative_to_one_training: float

    @classmethod
    def of(cls, steps: int, seconds: float, training_steps: int) -> "SpentCost":
        """From the steps and seconds spent, and the steps of one training."""
        return cls(steps, round(seconds, 3), round(steps / training_steps, 3))


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """What to train with, how sure that is, and why. Rates are per optimizer step; stepsize is in steps.

    ``stepsize`` is the mean of ``step_size_up`` and ``step_size_down``, the two halves of a cycle. ``optimizer`` and
    ``batch_size`` are those that were trained with; where the optimizer has an ``lr_mult``, the rate of each parameter
    group is so many times the one told. ``alternatives`` are other schedules that were trained beside this
    one, the best first: name, lr, mean and lines to paste.

    An inconclusive one has no bounds and no stepsize: None rather than a guess.
    """

    source: Source
    policy: str
    base_lr: float | None
    max_lr: float | None
    ratio: float | None
    stepsize: int | None
    step_size_up: int | None
    step_size_down: int | None
    stepsize_multiplier: float | None
    iterations_per_epoch: int | None
    gamma: float | None
    interval: dict[str, list[float]] | None
    confidence: Confidence
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    evidence: Evidence | None = None
    cost: SpentCost | None = None
    optimizer: dict[str, Any] | None = None
    batch_size: int | None = None
    alternatives: list[dict[str, Any]] = field(default_factory=list)
    job_id: str | None = None

    @classmethod
    def of(
        cls,
        source: Source,
        bounds: Bounds,
        candidate: Candidate | None,
        iterations_per_epoch: int | None,
        *,
        reasons: Sequence[str] = (),
        **more: Any,
    ) -> "Recommendation":
        """From what was read and, unless that was inconclusive, the schedule chosen."""
        schedule: dict[str, Any] = {name: getattr(candidate, name, None) for name in SCHEDULE}
        interval = None
        if candidate is not None and bounds.interval is not None:
            interval = {
                name: [min(low, value), max(high, value)]
                for name, value in (("base_lr", candidate.base_lr), ("max_lr", candidate.max_lr))
                for low, high in [bounds.interval[name]]
            }
        return cls(
            source=source,
            policy=candidate.policy if candidate else "triangular",
            **schedule,
            iterations_per_epoch=iterations_per_epoch,
            interval=interval,
            confidence=bounds.confidence,
            reasons=[*bounds.reasons, *reasons],
            **more,
        )

    @property
    def torch(self) -> dict[str, Any] | None:
        """Arguments of ``torch.optim.lr_scheduler.CyclicLR``; None where torch lacks the policy, or without bounds."""
        if self.stepsize is None or self.policy not in TORCH_MODES:
            return None
        arguments = {
            "base_lr": of_each_group(self.base_lr, self.optimizer),
            "max_lr": of_each_group(self.max_lr, self.optimizer),
            "step_size_up": self.step_size_up,
            "step_size_down": self.step_size_down,
            "mode": TORCH_MODES[self.policy],
        }
        return arguments | ({"gamma": self.gamma} if self.gamma else {}) | {"cycle_momentum": False}

    def to_dict(self) -> dict[str, Any]:
        """JSON values, in the order people read them."""
        document = asdict(self)
        return {"job_id": document.pop("job_id")} | document | {"torch": self.torch}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Recommendation":
        """The recommendation that ``to_dict`` was made of; what a newer service tells beyond it is left out."""
        values = _known(cls, document)
        for half in ("step_size_up", "step_size_down"):  # stored before the halves of a cycle could differ
            values.setdefault(half, values.get("stepsize"))
        for name, kind in (("evidence", Evidence), ("cost", SpentCost)):
            if values.get(name) is not None:
                values[name] = kind(**_known(kind, values[name]))
        return cls(**values)

    def scheduler(self, optimizer: "Optimizer") -> "LRScheduler":
        """The recommended schedule for ``optimizer``; call its ``step()`` after every ``optimizer.step()``.

        That it is of another kind than the one that the bounds are for, or has groups of other proportions, is logged
        as a warning.

        Raises:
            InvalidArgument: the recommendation is inconclusive, so there is no schedule.
        """
        if self.stepsize is None:
            raise InvalidArgument(
                "recommendation", f"must have bounds, as an inconclusive one has none ({'; '.join(self.reasons)})"
            )
        # By its name: the service reads this module without torch.
        torch_side = import_module("clr.schedules.torch_scheduler")
        made: LRScheduler = torch_side.scheduler(optimizer, **self.arguments)
        self._warn_of_other(optimizer, made.multipliers)  # type: ignore[attr-defined]
        return made

    def _warn_of_other(self, optimizer: Any, shares: Sequence[float]) -> None:
        if self.optimizer is None:
            return
        tested, given = self.optimizer.get("name"), type(getattr(optimizer, "optimizer", optimizer)).__name__
        if tested not in (None, given):
            log.warning("the bounds are for %s, and good rates of %s may be far from them", tested, given)
        proportions = self.optimizer.get("lr_mult", [1.0] * len(shares))
        if list(shares) != list(proportions):
            told = "the bounds are for parameter groups at %s times the rate, and those of this optimizer are at %s"
            log.warning(told, proportions, list(shares))

    @property
    def arguments(self) -> dict[str, Any]:
        """Those of ``clr.scheduler``; a falling half is named only where it is not as long as the rising one."""
        down = None if self.step_size_down == self.step_size_up else self.step_size_down
        named = {"policy": self.policy, "base_lr": self.base_lr, "max_lr": self.max_lr, "stepsize": self.step_size_up}
        given = named | {"stepsize_down": down, "gamma": self.gamma}
        return {name: value for name, value in given.items() if value is not None}

    def to_python(self) -> str:
        """Lines to paste below the line that makes ``optimizer``; comments alone where there are no bounds."""
        if self.stepsize is None:
            return "".join(f"# clr: {line}\n" for line in ["inconclusive, no bounds", *self.reasons])
        if self.torch is not None:
            module, function, arguments = "torch", "torch.optim.lr_scheduler.CyclicLR", self.torch
        else:
            module, function = "clr", "clr.scheduler"
            arguments = self.arguments
        lines = "\n".join(f"    {name}={value!r}," for name, value in arguments.items())
        told = f"# clr: {self.policy} from {self.base_lr:.6g} to {self.max_lr:.6g} ({self.confidence} confidence)"
        told = "\n# ".join([told, *reasons_of_groups(self.optimizer)])
        shown = {"module": module, "function": function, "arguments": lines, "cycle": 2 * self.stepsize, "told": told}
        return self._better() + PASTE.format(**shown)

    def _better(self) -> str:
        """What to say first where another schedule clearly did better: which, and its lines, commented out."""
        return "".join(
            f"# clr: {instead_of(other)}\n" + "".join(f"#   {line}\n" for line in other["python"].strip().splitlines())
            for other in better_alternatives(self.to_dict())
        )

    def to_yaml(self) -> str:
        """The document as YAML."""
        import yaml

        text: str = yaml.safe_dump(json.loads(json.dumps(self.to_dict())), sort_keys=False, allow_unicode=True)
        return text

    to_optax = formats.to_optax
    to_keras = formats.to_keras
    to_transformers = formats.to_transformers
    to_deepspeed = formats.to_deepspeed
    to_table = formats.to_table

    def _repr_html_(self) -> str:
        from clr.charts.notebook import recommendation_html

        return recommendation_html(self)


def of_each_group(lr: float | None, optimizer: Mapping[str, Any] | None) -> float | list[float] | None:
    """The rate of each parameter group, where those of the optimizer have proportions; else the one rate.

    >>> of_each_group(0.3, {"name": "SGD", "args": {}, "lr_mult": [0.1, 1.0]})
    [0.03, 0.3]
    """
    shares = (optimizer or {}).get("lr_mult")
    return lr if lr is None or shares is None else [float(f"{lr * share:.12g}") for share in shares]


def reasons_of_groups(optimizer: Mapping[str, Any] | None) -> list[str]:
    """What there is to say of parameter groups: rates of their own, and what is in none of them."""
    known = optimizer or {}
    said = []
    if "lr_mult" in known:
        listed = ", ".join(f"{share:g}" for share in known["lr_mult"])
        said.append(
            f"the parameter groups kept the proportions of their rates, {listed} times these: clr.scheduler keeps them "
            "too, CyclicLR takes a list for each bound"
        )
    if "untrained" in known:
        count = known["untrained"]
        what = "parameters of the model require a gradient but are" if count > 1 else "parameter of the model is"
        said.append(f"{count} {what} in no group of the optimizer, and stayed as before")
    return said


def better_alternatives(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those alternatives of a recommendation, as a document, that its warnings say did clearly better."""
    warnings = document.get("warnings") or ()
    said = [(other, did_better(other["name"], other["lr"])) for other in document.get("alternatives") or ()]
    return [other for other, sentence in said if any(warning.startswith(sentence) for warning in warnings)]


def instead_of(other: Mapping[str, Any]) -> str:
    """What to say of an alternative that did clearly better, above its lines.

    >>> instead_of({"name": "one_cycle", "lr": 0.25})
    'one_cycle at 0.25 did clearly better on the same seeds; its lines:'
    """
    return f"{other['name']} at {other['lr']:.3g} did clearly better on the same seeds; its lines:"


def _known(kind: Any, document: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: document[field.name] for field in fields(kind) if field.name in document}
