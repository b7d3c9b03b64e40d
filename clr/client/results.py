"""What a service found, as values with types. No I/O, no torch."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from clr.range_tests.bounds import Bounds
from clr.run import Curve

FINISHED = frozenset({"succeeded", "failed", "cancelled"})
"""The states that a job stays in."""


class JobDocument:
    """A job of the service, as last seen.

    Args:
        document: the job as the service tells it.
    """

    def __init__(self, document: Mapping[str, Any]):
        self.document = dict(document)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.state!r})"

    @property
    def id(self) -> str:
        """Its identifier."""
        return str(self.document["id"])

    @property
    def state(self) -> str:
        """queued, running, succeeded, failed or cancelled."""
        return str(self.document["state"])

    @property
    def finished(self) -> bool:
        """Whether its state is final."""
        return self.state in FINISHED

    @property
    def progress(self) -> float:
        """Share of the predicted work that is done, 0 to 1."""
        return float(self.document["progress"])

    @property
    def error(self) -> str | None:
        """Why it failed."""
        error: str | None = self.document["error"]
        return error

    def _repr_html_(self) -> str:
        from clr.charts.notebook import job_html

        return job_html(self.document, None)


@dataclass(frozen=True)
class RecordedTest:
    """The range test of a job.

    Args:
        bounds: what it says; None until all of its curves are read.
        curves: its ramps, one or more for each seed, as far as they are recorded.
        document: all that the service tells of it.
    """

    bounds: Bounds | None
    curves: list[Curve]
    document: dict[str, Any]

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """From the service's document."""
        bounds = document.get("bounds")
        ramps = [curve for curve in document["curves"] if _is_ramp(curve)]
        return cls(None if bounds is None else Bounds(**bounds), [_curve(ramp) for ramp in ramps], document)

    def chart(self) -> Any:
        """The picture, an Altair chart."""
        from clr.charts import range_test_chart

        return range_test_chart(self.document)

    def to_csv(self, path: str | Path) -> None:
        """Write the ramps with the header lr,loss,metric,seed."""
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["lr", "loss", "metric", "seed"])
            writer.writeheader()
            for ramp in filter(_is_ramp, self.document["curves"]):
                writer.writerows(point | {"seed": ramp["seed"]} for point in ramp["points"])

    def _repr_html_(self) -> str:
        from clr.charts.notebook import range_test_html

        return range_test_html(self.document)


@dataclass(frozen=True)
class TrialResult:
    """A trial of a job's search.

    Args:
        number: from 0.
        state: running, complete, pruned or failed.
        params: its schedule: policy, ratio, stepsize_multiplier and what follows from them.
        value: of the metric at its end; None while there is none.
        points: step and value at the ends of its cycles.
        steps: optimizer steps taken.
        started_at, finished_at: in UTC.
        error: why it failed.
    """

    number: int
    state: str
    params: dict[str, Any]
    value: float | None
    points: list[tuple[int, float | None]]
    steps: int
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """From the service's document."""
        plain = {name: document[name] for name in ("number", "state", "params", "value", "steps", "error")}
        points = [(point["step"], point["value"]) for point in document["points"]]
        started, finished = _instant(document["started_at"]), _instant(document["finished_at"])
        return cls(**plain, points=points, started_at=started, finished_at=finished)


def _is_ramp(curve: Mapping[str, Any]) -> bool:
    return str(curve["params"].get("policy", "")).endswith("_ramp")


def _curve(document: Mapping[str, Any]) -> Curve:
    points = document["points"]
    taken = [(step, point["metric"]) for step, point in enumerate(points, 1) if point["metric"] is not None]
    return Curve(
        [point["lr"] for point in points],
        [math.nan if point["loss"] is None else point["loss"] for point in points],
        [step for step, _ in taken],
        [metric for _, metric in taken],
        document["diverged"],
    )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
