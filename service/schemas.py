"""What the service answers with."""

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from service.store.models import CodeRow, Job, NoticeRow, RecommendationRow, RunRow, TaskRow

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Stage = Literal["range_test", "search", "confirm"]
RunState = Literal["running", "complete", "pruned", "failed"]
Document = dict[str, Any]
T = TypeVar("T")

JOB_ID = "0199c3f2a5b07c3e8d1f5a6b7c8d9e0f"


class Page(BaseModel, Generic[T]):
    items: list[T]
    next_cursor: str | None = Field(description="give it as ?cursor= for the next page; null on the last one")


class JobCost(BaseModel):
    steps: int = Field(description="optimizer steps taken so far", examples=[1200])
    predicted_steps: int | None = Field(description="of the whole job, where known", examples=[48000])
    seconds: float = Field(description="since the job was started, up to its end", examples=[12.5])

    @classmethod
    def of(cls, job: Job) -> Self:
        end = job.finished_at or datetime.now(UTC)
        seconds = 0.0 if job.started_at is None else max(0.0, (end - job.started_at).total_seconds())
        return cls(steps=job.steps, predicted_steps=job.predicted_steps, seconds=seconds)

    @property
    def predicted_seconds(self) -> float | None:
        """Of the whole job at most, at its pace so far."""
        return self.seconds * self.predicted_steps / self.steps if self.steps and self.predicted_steps else None


class RunUnderWay(BaseModel):
    """Where a run stands that is being trained."""

    stage: Stage
    number: int
    step: int = Field(description="optimizer steps that it has taken", examples=[1200])
    steps: int = Field(description="that it will take", examples=[4000])
    loss: float | None = Field(description="mean training loss since it was last recorded", examples=[0.4])


class Links(BaseModel):
    self: str
    events: str
    range_test: str
    trials: str
    recommendation: str

    @classmethod
    def of(cls, job_id: str) -> Self:
        base = f"/v1/jobs/{job_id}"
        return cls(
            self=base,
            events=f"{base}/events",
            range_test=f"{base}/range-test",
            trials=f"{base}/trials",
            recommendation=f"{base}/recommendation",
        )


class JobView(BaseModel):
    id: str = Field(examples=[JOB_ID])
    mode: str = Field(
        description="managed: trained by the service's own workers; external: by somebody else's trainer",
        examples=["managed"],
    )
    name: str = Field(examples=["digits demo"])
    task: str = Field(examples=["digits"])
    state: State
    stage: Stage | None = Field(description="while running: what it is at")
    progress: float = Field(ge=0, le=1, description="share of the predicted work that is done", examples=[0.4])
    priority: int
    spec: Document = Field(description="the spec, every default filled in", examples=[{"task": "digits"}])
    trained_with: Document | None = Field(
        description="optimizer, batch size and GPUs of each run, where the spec names none the task's own and what "
        "the cluster has; constant: what the best output does that is the same for all examples; null until known",
        examples=[{"optimizer": {"name": "SGD", "args": {"momentum": 0.9}}, "batch_size": 64, "gpus": 1}],
    )
    cost: JobCost
    predicted_seconds: float | None = Field(
        description="from its start to its end at most, at its pace so far; null until it has one, and once it is over",
        examples=[480.0],
    )
    under_way: list[RunUnderWay] = Field(description="where the runs stand that are being trained")
    error: str | None = Field(description="why it failed")
    cancel_requested: bool
    submitted_by: str | None = Field(description="name of the token it was submitted with; null without one")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: Links

    @classmethod
    def of(cls, job: Job) -> Self:
        cost = JobCost.of(job)
        made = {
            "cost": cost,
            "predicted_seconds": None if job.finished_at else cost.predicted_seconds,
            "under_way": job.under_way or [],
            "links": Links.of(job.id),
        }
        return cls.model_validate({name: getattr(job, name) for name in cls.model_fields.keys() - made.keys()} | made)


class StageCost(BaseModel):
    range_test: float
    search: float
    confirm: float


class PredictedCost(BaseModel):
    """What a job will cost at most. ``steps`` alone heeds limits.max_steps."""

    model_config = ConfigDict(from_attributes=True)

    steps: int | None = Field(description="optimizer steps; null where the task does not tell its size")
    iterations_per_epoch: int | None
    epochs: float = Field(description="passes over the training data, all runs together")
    relative_to_one_training: float
    stages: StageCost = Field(description="trainings of each stage")


class DryRun(BaseModel):
    """What would be stored, and what it would cost."""

    spec: Document
    cost: PredictedCost


class CurvePoint(BaseModel):
    lr: float
    loss: float | None = Field(description="training loss at that step; null where it was not finite")
    metric: float | None = Field(description="of the validation data, where it was taken after that step")


class SeedCurve(BaseModel):
    """One run of the range test. The ramps are those whose policy ends in _ramp."""

    number: int
    seed: int | None
    params: Document
    state: RunState
    diverged: bool
    error: str | None
    points: list[CurvePoint]

    @property
    def is_ramp(self) -> bool:
        return str(self.params.get("policy", "")).endswith("_ramp")

    @classmethod
    def of(cls, run: RunRow, rows: list[Document]) -> Self:
        return cls.model_validate(
            {
                "number": run.number,
                "seed": run.run.get("seed"),
                "params": run.params,
                "state": run.state,
                "diverged": any(row.get("diverged", False) for row in rows),
                "error": run.error,
                "points": [point for row in rows for point in _steps(row)],
            }
        )


def _steps(row: Document) -> list[Document]:
    """The steps since the last point; its metric was taken after the last of them."""
    points = [{"lr": lr, "loss": loss, "metric": None} for lr, loss in zip(row["lr"], row["loss"], strict=True)]
    if points:
        points[-1]["metric"] = row["metric"]
    return points


class RangeTestView(BaseModel):
    """The range test so far: its curves and, once it is read, what they say."""

    model_config = ConfigDict(extra="allow")

    job_id: str
    metric: str | None
    direction: str | None
    iterations_per_epoch: int | None
    curves: list[SeedCurve] = Field(description="one for each run, seed after seed")
    smoothed: Any = Field(None, description="the smoothed curve that was read; null until then")
    bounds: Any = Field(None, description="base_lr, max_lr and their intervals; null until the curves are read")

    @classmethod
    def of(cls, job: Job, curves: list[SeedCurve]) -> Self:
        own = {name: getattr(job, name) for name in ("metric", "direction", "iterations_per_epoch")}
        return cls.model_validate((job.range_test or {}) | own | {"job_id": job.id, "curves": curves})


class TrialPoint(BaseModel):
    step: int
    value: float | None


class TrialView(BaseModel):
    """One trial of the search."""

    number: int
    params: Document = Field(examples=[{"policy": "triangular", "ratio": 6.0, "stepsize_multiplier": 5.0}])
    state: RunState
    value: float | None
    points: list[TrialPoint] = Field(description="the metric at the ends of its cycles")
    steps: int
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None

    @classmethod
    def of(cls, run: RunRow, rows: list[Document]) -> Self:
        own = {name: getattr(run, name) for name in cls.model_fields.keys() - {"points"}}
        points = [{"step": row["step"], "value": row["metric"]} for row in _scored(rows)]
        return cls.model_validate(own | {"points": points})


def _scored(rows: list[Document]) -> list[Document]:
    """Those with a metric; the last where none has one."""
    return [row for row in rows if row["metric"] is not None or row["diverged"]] or rows[-1:]


class NoticeView(BaseModel):
    """Something that the job's own address was told, or is to be."""

    id: str = Field(description="sent along as webhook-id: the same at every attempt")
    kind: Literal["job.bounds", "job.ended"]
    attempts: int
    error: str | None = Field(description="why the last attempt failed", examples=["HTTP 503"])
    created_at: datetime
    delivered_at: datetime | None
    given_up: bool = Field(description="there is no further attempt")

    @classmethod
    def of(cls, notice: NoticeRow) -> Self:
        own = {name: getattr(notice, name) for name in cls.model_fields.keys() - {"given_up"}}
        return cls(**own, given_up=notice.due_at is None and notice.delivered_at is None)


class Torch(BaseModel):
    """Arguments of torch.optim.lr_scheduler.CyclicLR."""

    base_lr: float
    max_lr: float
    step_size_up: int
    step_size_down: int
    mode: str
    gamma: float | None = None
    cycle_momentum: bool


class Interval(BaseModel):
    base_lr: Annotated[list[float], Field(min_length=2, max_length=2)]
    max_lr: Annotated[list[float], Field(min_length=2, max_length=2)]


class RecommendationView(BaseModel):
    """What to train with, how sure that is, and why. Without bounds when inconclusive."""

    model_config = ConfigDict(extra="allow")

    job_id: str | None = Field(examples=[JOB_ID])
    source: Stage
    policy: str = Field(examples=["triangular"])
    base_lr: float | None = Field(examples=[0.001])
    max_lr: float | None = Field(examples=[0.006])
    ratio: float | None = Field(examples=[6.0])
    stepsize: int | None = Field(description="half a cycle, in optimizer steps", examples=[2000])
    step_size_up: int | None = Field(None, description="steps of a cycle's rising half", examples=[1200])
    step_size_down: int | None = Field(None, description="steps of its falling half", examples=[2800])
    stepsize_multiplier: float | None = Field(description="stepsize in epochs", examples=[4.0])
    iterations_per_epoch: int | None = Field(examples=[500])
    gamma: float | None = Field(None, description="decay per step of the exp_range policies")
    interval: Interval | None
    confidence: Literal["high", "medium", "low", "inconclusive"]
    reasons: list[str]
    warnings: list[str]
    evidence: Document | None = Field(description="the runs that were compared, and the verdict")
    cost: Document | None = Field(description="steps, seconds, relative_to_one_training")
    torch: Torch | None = Field(description="null where torch lacks the policy")
    alternatives: list[Document] = Field(
        default_factory=list, description="other schedules that were trained beside it, the best first"
    )


class FoundRecommendation(RecommendationView):
    """A recommendation, and what it was found for."""

    task: str
    args: Document = Field(description="arguments of the task", examples=[{"hidden": 64}])
    optimizer: str | None = Field(description="name of the optimizer that was trained with")
    batch_size: int | None
    epochs: float
    updated_at: datetime

    @classmethod
    def document(cls, row: RecommendationRow, spec: Document) -> Document:
        """As it was stored: not checked again, so that one old document cannot spoil a list."""
        updated_at = row.updated_at.isoformat().replace("+00:00", "Z")
        found_for = {"task": row.task, "optimizer": row.optimizer, "updated_at": updated_at}
        batch_size = row.document.get("batch_size") or spec.get("batch_size")
        return row.document | found_for | {"args": spec.get("args"), "batch_size": batch_size, "epochs": spec["epochs"]}


class TaskView(BaseModel):
    name: str = Field(examples=["digits"])
    doc: str = Field(description="what it trains")
    schema_: Document = Field(alias="schema", description="JSON schema of its arguments")

    @classmethod
    def of(cls, row: TaskRow) -> Self:
        return cls(name=row.name, doc=row.doc, schema=row.schema)


class BoundsView(BaseModel):
    """What a curve says. Without bounds when inconclusive."""

    base_lr: float | None = Field(examples=[0.001])
    max_lr: float | None = Field(examples=[0.006])
    interval: Interval | None
    confidence: Literal["high", "medium", "low", "inconclusive"]
    reasons: list[str]


class CodeView(BaseModel):
    """Uploaded code."""

    sha256: str = Field(description="SHA-256 of the zip: give it as `code` of a job")
    size: int = Field(description="bytes of the zip", examples=[2048])
    files: int = Field(description="files in it", examples=[3])
    created_at: datetime

    @classmethod
    def of(cls, row: CodeRow) -> Self:
        return cls(sha256=row.digest, size=row.size, files=row.files, created_at=row.created_at)


class Act(BaseModel):
    """Something that somebody did."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    at: datetime
    token: str | None = Field(description="name of the token; null: on the service's machine, without one")
    action: str = Field(examples=["submit"])
    job_id: str | None = Field(examples=[JOB_ID])
    detail: str | None


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    status: Literal["ready"] = "ready"
    workers: int = Field(description="workers seen lately that have their Ray", examples=[1])
