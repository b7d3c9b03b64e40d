"""What an external trainer sends, and what it is handed."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from clr.range_tests.recorded_loss import SHORTEST

LARGEST = 1e38
"""Values beyond what a single-precision float holds are those of a training that diverged."""

Finite = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RampPoint(_Strict):
    """One optimizer step of a ramp; with ``step``, one that stands for the steps since the last point."""

    lr: float = Field(ge=0, le=1e6, description="rate of this step; must never fall")
    loss: float | None = Field(description="training loss of this step; null where it was not finite")
    metric: Finite | None = Field(None, description="of the validation data, where it was taken after this step")
    step: int | None = Field(
        None, ge=1, le=2**53, description="optimizer steps taken so far, for a ramp of which some points are left out"
    )


def _example() -> dict[str, Any]:
    """A ramp of 40 steps whose loss falls from step 20 on."""
    points = [{"lr": float(f"{1e-5 * 1.4**i:.3g}"), "loss": 2.3 if i < 20 else 1.5} for i in range(40)]
    return {"points": points, "seed": 0}


class RangeTestReport(_Strict):
    """One seed's range test: the rate rises at every step, the loss of each is recorded."""

    model_config = ConfigDict(json_schema_extra={"examples": [_example()]})

    points: list[RampPoint] = Field(min_length=SHORTEST, description="one for each optimizer step, in order")
    seed: int = Field(0, ge=0, lt=2**31, description="tells one repetition from another")


class OrderedRun(BaseModel):
    """A run to train: so many steps under this schedule, on this seed."""

    stage: Literal["range_test", "search", "confirm"]
    number: int = Field(description="within its stage, from 0")
    attempt: int = Field(description="from 1; more where an earlier trainer fell silent")
    policy: str = Field(examples=["triangular"])
    base_lr: float = Field(examples=[0.001])
    max_lr: float = Field(examples=[0.006])
    step_size_up: int = Field(description="steps of a cycle's rising half; of a ramp, all of it", examples=[600])
    step_size_down: int = Field(description="steps of its falling half; 0 for a ramp", examples=[1400])
    gamma: float | None = Field(None, description="decay per step of the exp_range policies")
    steps: int = Field(description="optimizer steps to train", examples=[2000])
    seed: int = Field(description="of initialisation and data order")
    evaluate_every: int = Field(description="steps between two metrics, if there are validation data", examples=[2000])


class RunPoint(_Strict):
    """Where a run is."""

    step: int = Field(ge=1, le=2**53, description="optimizer steps taken so far; rises from point to point")
    loss: float | None = Field(
        description="training loss of that step, from before its update, or the mean since the last point; null: not "
        "finite, the run has diverged",
    )
    lr: float | None = Field(None, ge=0, description="rate of that step, checked against the one ordered")
    metric: Finite | None = Field(None, description="of the validation data, where it was taken after that step")


class Reported(_Strict):
    """What a run has recorded since the last report; steps that were reported before are left out."""

    points: list[RunPoint] = Field(min_length=1)
    attempt: int | None = Field(None, ge=1, description="of the run: a trainer that was given up is told so")


class ToGoOn(BaseModel):
    """Whether to go on."""

    stop: bool = Field(description="true: stop this run, tell its value as it is now, and ask for the next")
    reason: str | None


class Ended(_Strict):
    """How a run ended: a value, or why there is none."""

    value: float | None = Field(
        None, description="metric, else loss, at its end; null, or beyond 1e38 either way: diverged"
    )
    state: Literal["complete", "failed"] = Field(
        "complete", description="failed: for a reason that is not the schedule's; it is handed out again, three times"
    )
    error: str | None = Field(None, max_length=10_000, description="why it failed")
    attempt: int | None = Field(None, ge=1, description="of the run: a trainer that was given up is told so")

    @field_validator("value")
    @classmethod
    def _what_no_float_holds_diverged(cls, value: float | None) -> float | None:
        return value if value is not None and abs(value) <= LARGEST else None

    @model_validator(mode="after")
    def _a_value_or_a_state(self) -> Self:
        if not self.model_fields_set & {"value", "state"}:
            raise ValueError('give a "value", or a "state" of "failed"')
        if self.state == "failed" and self.value is not None:
            raise ValueError("a failed run has no value")
        return self
