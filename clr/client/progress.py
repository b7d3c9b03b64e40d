"""A job's progress as people see it: a bar in a terminal or a notebook, a line for each tenth of the way elsewhere."""

from typing import Self

from rich import progress
from rich.console import Console

from clr.client.results import JobDocument


class Progress:
    """Shows a job's progress on standard error, in a ``with`` statement."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, soft_wrap=True)
        self._live = self._console.is_terminal or self._console.is_jupyter
        self._bar = progress.Progress(
            progress.TextColumn("{task.description:<10}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[steps]} steps"),
            progress.TimeElapsedColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._bar.add_task("queued", total=1.0, steps=0)
        self._told = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, job: JobDocument) -> None:
        """Show the job as it was last seen."""
        stage = job.document["stage"] if job.state == "running" else None
        steps = job.document["cost"]["steps"]
        self._bar.update(self._task, description=stage or job.state, completed=job.progress, steps=steps)
        if not self._live:
            self._tell(f"{stage or job.state} {10 * int(10 * job.progress)} %", steps)

    def _tell(self, place: str, steps: int) -> None:
        if place != self._told:
            self._console.print(f"{place}, {steps} steps", highlight=False)
            self._told = place
