"""What people see of a job that goes on."""

from typing import Any

import pytest

from clr.client.progress import Progress, duration
from clr.client.results import JobDocument

RUNS = [
    {"stage": "search", "number": n, "step": 41_000, "steps": 108_000, "loss": loss}
    for n, loss in ((3, 0.25), (4, None))
]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0 s"), (45.4, "45 s"), (89, "89 s"), (720, "12 min"), (12_000, "3 h 20 min"), (360_000, "100 h 0 min")],
)
def test_a_duration_is_told_as_people_say_it(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_bar_shows_where_the_runs_stand_and_the_time_left() -> None:
    job: dict[str, Any] = {
        "id": "j",
        "state": "running",
        "stage": "search",
        "progress": 0.4,
        "predicted_seconds": 900.0,
    }
    job |= {"cost": {"steps": 82_000, "predicted_steps": 200_000, "seconds": 180.0}, "under_way": RUNS}
    shown = Progress()
    shown.show(JobDocument(job))
    (task,) = shown._bar.tasks
    assert task.fields["runs"] == ", run 3 at 41,000 of 108,000 loss 0.25, run 4 at 41,000 of 108,000"
    assert task.fields["left"] == "about 12 min left"
    shown.show(JobDocument(job | {"under_way": [], "predicted_seconds": None}))
    assert (task.fields["runs"], task.fields["left"]) == ("", "")
