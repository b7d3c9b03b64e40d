"""A job's progress as people see it: a bar in a terminal or a notebook, a line for each tenth of the way elsewhere."""

from collections.abc import Mapping
from typing import Any, Self

from rich import progress
from rich.console import Console

from clr.client.results import JobDocument

SHOWN_RUNS = 2
"""Of the runs under way; a line holds no more."""


class Progress:
    """Shows a job's progress on standard error, in a ``with`` statement."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, soft_wrap=True)
        self._live = self._console.is_terminal or self._console.is_jupyter
        self._bar = progress.Progress(
            progress.TextColumn("{task.description:<10}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[steps]:,} steps{task.fields[runs]}"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[left]}"),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._bar.add_task("queued", total=1.0, steps=0, runs="", left="")
        self._told = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, job: JobDocument) -> None:
        """Show the job as it was last seen."""
        stage = job.document["stage"] if job.state == "running" else None
        cost = job.document["cost"]
        steps, predicted = cost["steps"], job.document.get("predicted_seconds")
        left = "" if predicted is None else f"about {duration(predicted - cost['seconds'])} left"
        runs = "".join(map(_where, (job.document.get("under_way") or [])[:SHOWN_RUNS]))
        self._bar.update(
            self._task, description=stage or job.state, completed=job.progress, steps=steps, runs=runs, left=left
        )
        if not self._live:
            self._tell(f"{stage or job.state} {10 * int(10 * job.progress)} %", steps)

    def _tell(self, place: str, steps: int) -> None:
        if place != self._told:
            self._console.print(f"{place}, {steps} steps", highlight=False)
            self._told = place


def duration(seconds: float) -> str:
    """Seconds as people say them: ``45 s``, ``12 min``, ``3 h 20 min``."""
    minutes, hours = round(seconds / 60), int(seconds // 3600)
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    return f"{minutes} min" if minutes < 90 else f"{hours} h {minutes - 60 * hours} min"


def _where(run: Mapping[str, Any]) -> str:
    """Where a run under way stands."""
    loss = "" if run["loss"] is None else f" loss {run['loss']:.3g}"
    return f", run {run['number']} at {run['step']:,} of {run['steps']:,}{loss}"
