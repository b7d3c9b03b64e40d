"""What an external trainer sends, and what it is handed."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clr.range_tests.recorded import SHORTEST
from clr.run import Direction

LARGEST = 1e38
"""Values beyond what a single-precision float holds are those of a training that diverged."""

Finite = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RampPoint(_Strict):
    """One optimizer step of a ramp."""

    lr: float = Field(ge=0, le=1e6, description="rate of this step; must never fall")
    loss: float | None = Field(description="training loss of this step; null where it was not finite")
    metric: Finite | None = Field(None, description="of the validation data, where it was taken after this step")


def _example() -> dict[str, Any]:
    """A ramp of 40 steps whose loss falls from step 20 on."""
    points = [{"lr": float(f"{1e-5 * 1.4**i:.3g}"), "loss": 2.3 if i < 20 else 1.5} for i in range(40)]
    return {"points": points, "seed": 0, "direction": "maximize", "iterations_per_epoch": 100}


class RangeTestReport(_Strict):
    """One seed's range test: the rate rises at every step, the loss of each is recorded."""

    model_config = ConfigDict(json_schema_extra={"examples": [_example()]})

    points: list[RampPoint] = Field(min_length=SHORTEST, description="one for each optimizer step, in order")
    seed: int = Field(0, ge=0, lt=2**31, description="tells one repetition from another")
    direction: Direction = Field("maximize", description="whether larger values of metric and trials are better")
    iterations_per_epoch: int = Field(ge=1, le=10**9, description="optimizer steps in one pass over the training data")


class Proposed(BaseModel):
    """A trial to train: so many steps under this schedule, on this seed."""

    number: int
    policy: str = Field(examples=["triangular"])
    base_lr: float = Field(examples=[0.001])
    max_lr: float = Field(examples=[0.006])
    ratio: float = Field(examples=[6.0])
    stepsize: int = Field(description="half a cycle, in optimizer steps", examples=[500])
    stepsize_multiplier: float = Field(description="stepsize in epochs", examples=[5.0])
    cycles: int = Field(examples=[2])
    gamma: float | None = Field(None, description="decay per step of the exp_range policies")
    steps: int = Field(description="optimizer steps to train; they end where a cycle ends", examples=[2000])
    seed: int = Field(description="of initialisation and data order: the same for all trials of a search")


class TrialReport(_Strict):
    """The value of a trial under way."""

    step: int = Field(ge=1, le=2**53, description="optimizer steps taken so far; must rise from report to report")
    value: Finite | None = Field(description="of the validation data; null: diverged")


class Advice(BaseModel):
    """Whether to go on."""

    prune: bool = Field(description="true: stop this trial, tell its value as it is now, and ask for the next")


class Result(_Strict):
    """How a trial ended: a value, or why there is none."""

    value: Finite | None = Field(None, description="at its end; null: diverged")
    state: Literal["complete", "pruned", "failed"] = Field(
        "complete", description="pruned: stopped early; failed: for a reason that is not the schedule's"
    )
    error: str | None = Field(None, max_length=10_000, description="why it failed")

    @model_validator(mode="after")
    def _a_value_or_a_state(self) -> Self:
        if not self.model_fields_set & {"value", "state"}:
            raise ValueError('give a "value", or a "state" of "pruned" or "failed"')
        if self.state == "failed" and self.value is not None:
            raise ValueError("a failed trial has no value")
        return self
