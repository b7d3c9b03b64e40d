"""The job spec: what to train, what to search, within which limits. Plain values, no torch.

One pydantic model validates a spec wherever it enters (REST, command line, library), so an error reads the same
everywhere. Unknown fields are errors.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from clr.errors import broken_rules
from clr.run import Direction
from clr.schedules.cycles import default_multipliers, whole_cycles

CyclicPolicy = Literal["triangular", "triangular2", "exp_range", "exp_range_amplitude", "welch", "hann"]
Baseline = Literal["fixed", "one_cycle", "cosine", "reduce_on_plateau", "schedule_free", "prodigy"]
Schedule = Literal["fixed", "one_cycle", "cosine"]
"""The baselines that are a function of the step alone."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=1e-12, le=1e6, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Epochs = Annotated[float, Field(ge=1e-6, le=100_000, allow_inf_nan=False)]
Multiplier = Annotated[float, Field(ge=1e-7, le=100_000, allow_inf_nan=False)]
Ratio = Annotated[float, Field(gt=1, le=1000, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


def _unique(values: list[Any]) -> list[Any]:
    if len(set(values)) != len(values):
        raise ValueError("items must be unique")
    return values


def _ascending(values: tuple[float, float]) -> tuple[float, float]:
    low, high = values
    if low > high:
        raise ValueError("low <= high must hold: the search space is empty")
    return values


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Spec = TypeVar("Spec", bound=_Strict)


def checked(kind: type[Spec], **fields: Any) -> Spec:
    """A specification of plain values.

    Raises:
        InvalidArgument: a field is unknown or breaks its rule.
    """
    try:
        return kind(**fields)
    except ValidationError as error:
        raise broken_rules(error.errors(), fields) from None


def is_within(module: str, modules: Iterable[str]) -> bool:
    """Whether ``module`` is one of ``modules`` or lies below one.

    >>> [is_within(name, ["mine"]) for name in ("mine", "mine.tasks", "miner")]
    [True, True, False]
    """
    return any(f"{module}.".startswith(f"{one}.") for one in modules)


class _SGDArgs(_Strict):
    momentum: Fraction = 0.9
    dampening: Fraction = 0.0
    weight_decay: NonNegative = 0.0
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError("nesterov needs momentum > 0 and dampening = 0")
        return self


class _AdamArgs(_Strict):
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), strict=False)
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0
    amsgrad: bool = False


class _AdamWArgs(_AdamArgs):
    weight_decay: NonNegative = 0.01


class _NAdamArgs(_Strict):
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), strict=False)
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0
    momentum_decay: NonNegative = 0.004
    decoupled_weight_decay: bool = False


class _RAdamArgs(_Strict):
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), strict=False)
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0
    decoupled_weight_decay: bool = False


class _RMSpropArgs(_Strict):
    alpha: Fraction = 0.99
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0
    momentum: Fraction = 0.0
    centered: bool = False


class _AdagradArgs(_Strict):
    lr_decay: NonNegative = 0.0
    weight_decay: NonNegative = 0.0
    initial_accumulator_value: NonNegative = 0.0
    eps: Positive = 1e-10


class SGD(_Strict):
    """torch.optim.SGD; momentum 0.9 unless said otherwise."""

    name: Literal["SGD"] = "SGD"
    args: _SGDArgs = Field(default_factory=_SGDArgs)


class Adam(_Strict):
    """torch.optim.Adam."""

    name: Literal["Adam"]
    args: _AdamArgs = Field(default_factory=_AdamArgs)


class AdamW(_Strict):
    """torch.optim.AdamW."""

    name: Literal["AdamW"]
    args: _AdamWArgs = Field(default_factory=_AdamWArgs)


class NAdam(_Strict):
    """torch.optim.NAdam."""

    name: Literal["NAdam"]
    args: _NAdamArgs = Field(default_factory=_NAdamArgs)


class RAdam(_Strict):
    """torch.optim.RAdam."""

    name: Literal["RAdam"]
    args: _RAdamArgs = Field(default_factory=_RAdamArgs)


class RMSprop(_Strict):
    """torch.optim.RMSprop."""

    name: Literal["RMSprop"]
    args: _RMSpropArgs = Field(default_factory=_RMSpropArgs)


class Adagrad(_Strict):
    """torch.optim.Adagrad."""

    name: Literal["Adagrad"]
    args: _AdagradArgs = Field(default_factory=_AdagradArgs)


class OtherOptimizer(_Strict):
    """Another of torch.optim; its arguments are checked where it is made."""

    name: Literal["ASGD", "Adadelta", "Adafactor", "Adamax", "Muon", "Rprop", "SparseAdam"]
    args: dict[str, JsonValue] = Field(default_factory=dict)


OptimizerSpec = Annotated[
    SGD | Adam | AdamW | NAdam | RAdam | RMSprop | Adagrad | OtherOptimizer, Field(discriminator="name")
]


class RangeTestSpec(_Strict):
    """The LR range test. Nulls leave the choice to the method."""

    min_lr: Rate | None = Field(None, description="where the first, widest ramp begins; null: chosen by the method")
    max_lr: Rate | None = Field(None, description="no rate above it is tried or recommended; null: past divergence")
    seeds: int = Field(3, ge=1, le=20, description="most repetitions; fewer where each would be too short to read")
    epochs: Epochs | None = Field(
        None,
        description="budget of the whole test, all seeds together; null: at most one training",
    )

    @model_validator(mode="after")
    def _min_below_max(self) -> Self:
        if self.min_lr is not None and self.max_lr is not None and self.min_lr >= self.max_lr:
            raise ValueError("min_lr < max_lr must hold")
        return self


class SearchSpec(_Strict):
    """The Optuna search over the ratio max_lr / base_lr and the stepsize multiplier."""

    trials: int | None = Field(
        None, ge=1, le=10_000, description="schedules that are trained, once each; null: planned within the budget"
    )
    ratio: Annotated[tuple[Ratio, Ratio], AfterValidator(_ascending)] = Field(
        (1.5, 20.0), strict=False, description="lowest and highest max_lr / base_lr"
    )
    stepsize_multiplier: Annotated[tuple[Multiplier, Multiplier], AfterValidator(_ascending)] | None = Field(
        None,
        strict=False,
        description="lowest and highest stepsize in epochs; null: 1 to 10, widened to half the epochs",
        examples=[[1, 10]],
    )
    rise: Annotated[tuple[Fraction, Fraction], AfterValidator(_ascending)] = Field(
        (0.05, 0.5), strict=False, description="lowest and highest share of a cycle that rises"
    )
    policies: Annotated[list[CyclicPolicy], Field(min_length=1), AfterValidator(_unique)] = Field(
        default=["triangular"]
    )
    epochs: Epochs | None = Field(
        None,
        description="length of one trial; null: the job's epochs, or shorter where the budget does not allow three",
    )
    warm_start: bool = Field(
        False,
        description="try first what earlier jobs recommended for the same task, args, optimizer and batch size",
    )


class ConfirmSpec(_Strict):
    """The recommended schedule and its baselines, trained again on fresh seeds."""

    seeds: int | None = Field(
        None, ge=1, le=20, description="trainings of each on fresh seeds; null: planned within the budget"
    )
    baselines: Annotated[list[Baseline], AfterValidator(_unique)] | None = Field(
        None, description="schedules to compare with; null: planned within the budget"
    )


Word = Annotated[str, Field(max_length=10_000, pattern=r"^[^\x00]*$")]

_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
LabelKey = Annotated[str, Field(pattern=rf"^([A-Za-z0-9][A-Za-z0-9.-]{{0,200}}/)?{_NAME}$")]
LabelValue = Annotated[str, Field(pattern=rf"^{_NAME}$")]

SMALLEST_SHARE = 0.001
"""Of a device: nobody shares one among more runs, and schedulers round smaller shares to nothing."""


class Resources(_Strict):
    """What one training run occupies. A fraction shares a device."""

    gpus: float | None = Field(None, ge=0, le=64, description="null: one where the cluster has any, else none")
    cpus: float = Field(1, gt=0, le=1024)
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict,
        max_length=8,
        exclude_if=lambda labels: not labels,
        description="Ray's labels that a node must have, such as its type of GPU",
        examples=[{"ray.io/accelerator-type": "H100"}],
    )

    @model_validator(mode="after")
    def _a_share_or_whole_devices(self) -> Self:
        for field in ("gpus", "cpus"):
            value = getattr(self, field) or 0
            if value > 1 and value != int(value):
                raise ValueError(f"{field} must be a whole number where it is above 1")
            if 0 < value < SMALLEST_SHARE:
                raise ValueError(f"{field} must be 0 or at least {SMALLEST_SHARE:g}")
        return self


class Limits(_Strict):
    """Hard limits of one job. What was found when one strikes is still recommended."""

    max_steps: int | None = Field(None, ge=1, description="optimizer steps of all runs together")
    max_seconds: Positive | None = Field(
        None, description="wall-clock seconds in the hands of workers; of an external job, from its start"
    )
    run_seconds: Positive | None = Field(
        None,
        description="seconds without a report after which a run of a command or an external trainer is given up and "
        "handed out again; null: 600",
    )


class Notify(_Strict):
    """Whom to tell how the job goes, by POST: its first bounds, and its end."""

    url: str = Field(
        max_length=2000,
        description="an http or https address; not of this machine or a private network unless the service's admin "
        "allows it",
        examples=["https://example.com/clr"],
    )

    @field_validator("url")
    @classmethod
    def _an_address_of_the_web(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            sound = False
        if not sound or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("must be an http or https address with a host, in printable ASCII")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must hold no user name or password: deliveries are signed instead")
        return url


MANAGED_TASK = r"^[A-Za-z0-9_.-]+(:[A-Za-z_][A-Za-z0-9_]*)?$"


class JobSpec(_Strict):
    """A training job to find learning-rate bounds for."""

    mode: Literal["managed", "command", "external"] = Field(
        "managed",
        description="managed: workers train a task; command: they start your own program; external: your own trainer "
        "trains, and reports over REST",
    )
    name: str = Field("", max_length=200, description="for people; the task's name when left out")
    task: str = Field(
        "",
        max_length=200,
        validate_default=True,
        description="a registered task, or module:function of the uploaded code or installed on the workers; for a "
        "command or an external job any label",
    )
    args: dict[str, JsonValue] = Field(default_factory=dict, description="arguments of the task")
    code: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="SHA-256 of uploaded code, in which the task is found"
    )
    command: Annotated[list[Word], Field(min_length=1, max_length=1000)] | None = Field(
        None,
        description="program and arguments of a command job, which is started for each run",
        examples=[["python", "train.py", "--data", "/data"]],
    )
    optimizer: OptimizerSpec | None = Field(None, description="null: the task's own")
    batch_size: int | None = Field(None, ge=1, le=1_000_000, description="null: the task's own")
    epochs: Epochs = Field(
        20, description="length of the training to be recommended for; a command or an external job must give it"
    )
    iterations_per_epoch: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="optimizer steps in one pass over the training data: of a command or an external job, which must "
        "give it; a task says it itself",
    )
    direction: Direction | None = Field(
        None,
        description="whether larger metrics are better: of a command or an external job, which must give it; a task "
        "says it itself",
    )
    seed: int = Field(0, ge=0, lt=2**31)
    budget: Positive | None = Field(
        None,
        le=1e6,
        description="trainings that the whole job may cost; null: 6, or what the numbers in search and confirm take",
    )
    range_test: RangeTestSpec = Field(default_factory=RangeTestSpec)
    search: SearchSpec | None = Field(default_factory=SearchSpec)
    confirm: ConfirmSpec | None = Field(default_factory=ConfirmSpec)
    resources: Resources = Field(default_factory=Resources)
    limits: Limits = Field(default_factory=Limits)
    notify: Notify | None = Field(
        None,
        exclude_if=lambda notify: notify is None,
        description="whom to tell of the first bounds and of the end",
    )
    priority: int = Field(0, ge=-100, le=100, description="higher runs first")

    @field_validator("task")
    @classmethod
    def _the_task_can_be_found(cls, task: str, info: ValidationInfo) -> str:
        mode = info.data.get("mode")
        if not task and mode in ("managed", "external"):
            raise PydanticCustomError("missing", "is required: what is trained", {"field": "task"})
        if mode == "managed" and not re.fullmatch(MANAGED_TASK, task):
            raise ValueError("must be a registered task or module:function, in letters, digits, _, . and - alone")
        return task

    @model_validator(mode="after")
    def _names_default_to_what_is_trained(self) -> Self:
        if not self.task and self.command:
            object.__setattr__(self, "task", _label(self.command))
        if not self.name:
            object.__setattr__(self, "name", self.task)
        return self

    @model_validator(mode="after")
    def _each_mode_has_what_it_needs(self) -> Self:
        """A task knows its own length and direction; of another's program they must be told."""
        own = self.mode == "managed"
        needed = {"command": self.mode == "command", "iterations_per_epoch": not own, "direction": not own}
        for field, wanted in needed.items():
            if wanted != (getattr(self, field) is not None):
                rule = (
                    f"is required for {_ARTICLE[self.mode]} job"
                    if wanted
                    else f"must be null for {_ARTICLE[self.mode]} job"
                )
                raise PydanticCustomError("mode", rule, {"field": field})
        if not own and "epochs" not in self.model_fields_set:
            rule = f"is required for {_ARTICLE[self.mode]} job: the service cannot know how long yours trains"
            raise PydanticCustomError("mode", rule, {"field": "epochs"})
        return self

    @model_validator(mode="after")
    def _code_holds_what_is_trained(self) -> Self:
        if self.code is not None and self.mode == "external":
            raise PydanticCustomError("code_external", "must be null for an external job", {"field": "code"})
        if self.code is not None and self.mode == "managed" and ":" not in self.task:
            raise PydanticCustomError("task_of_code", "must be module:function of the code", {"field": "task"})
        return self

    @model_validator(mode="after")
    def _another_trainer_follows_schedules_alone(self) -> Self:
        named = (self.confirm and self.confirm.baselines) or []
        if self.mode != "managed" and not set(named) <= set(get_args(Schedule)):
            rule = f"must be of {', '.join(get_args(Schedule))} for {_ARTICLE[self.mode]} job: they are rates alone"
            raise PydanticCustomError("mode", rule, {"field": "confirm.baselines"})
        return self

    @model_validator(mode="after")
    def _a_range_test_alone_compares_nothing(self) -> Self:
        for field in ("seeds", "baselines"):
            if self.search is None and self.confirm is not None and getattr(self.confirm, field) is not None:
                rule = "must be null where search is: a range test alone compares nothing"
                raise PydanticCustomError("no_search", rule, {"field": f"confirm.{field}"})
        return self

    @model_validator(mode="after")
    def _search_holds_a_whole_cycle(self) -> Self:
        if self.search is None:
            return self
        epochs = self.search.epochs or self.epochs
        low, high = self.search.stepsize_multiplier or default_multipliers(epochs)
        search = self.search.model_copy(update={"stepsize_multiplier": (low, high)})
        object.__setattr__(self, "search", search)
        if not whole_cycles(epochs, low, high):
            raise PydanticCustomError(
                "empty_search_space",
                "no whole number of cycles k gives a stepsize multiplier {epochs} / (2 k) in [{low}, {high}]: "
                "the search space is empty",
                {"field": "search.stepsize_multiplier", "epochs": epochs, "low": low, "high": high},
            )
        return self


_ARTICLE = {"managed": "a managed", "command": "a command", "external": "an external"}


def _label(command: list[str]) -> str:
    """What people call a command: its script, else its program."""
    script = next((word for word in command[1:] if "." in word and not word.startswith("-")), command[0])
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", script.rsplit("/", 1)[-1])[:200].strip("-") or "command"
