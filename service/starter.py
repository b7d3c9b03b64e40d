"""What ``clr init`` writes: a task of one's own that runs as it is, to be changed bit by bit, and its job."""

from pathlib import Path

import typer

TASK_FILE, JOB_FILE = "clr_task.py", "clr_job.yaml"

TASK = '''\
"""What to train, for clr. It runs as it is; put your own network, data and loss in place of these, one at a time.

    python clr_task.py                          reads bounds on this machine, without a service
    clr submit clr_job.yaml --code . --wait     the whole search, on a service's workers
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import clr


def my_task(hidden: int = 64) -> clr.Task:  # a job's `args` are these arguments: annotate each
    """Handwritten digits and a small network.

    Args:
        hidden: width of the hidden layer.
    """
    # Your data: a pair of tensors, a torch Dataset or a DataLoader. Paths are those of the machine that trains.
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32) / 16
    target = torch.tensor(labels)

    # Your network: a function that makes a new one, since every run starts from fresh weights.
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))

    return clr.Task(
        model=model,
        train=(images[400:], target[400:]),
        val=(images[:400], target[:400]),
        loss=nn.functional.cross_entropy,  # of output and target
        metric="accuracy",  # or your own function of output and target, with direction="maximize" or "minimize"
        # forward=lambda model, batch: (model(batch["x"]), batch["y"]),  # for batches of another structure
        # optimizer=lambda params: torch.optim.AdamW(params, weight_decay=0.01),  # yours; clr sets the rate
    )


if __name__ == "__main__":
    bounds = clr.range_test(my_task(), epochs=20).bounds
    print("base_lr", bounds.base_lr, "max_lr", bounds.max_lr, "confidence", bounds.confidence, *bounds.reasons)
'''

JOB = """\
# A job for clr: only `task` is required, and the service's /docs lists all there is.
name: my task
task: clr_task:my_task # file and function
args: {hidden: 64} # arguments of the function
epochs: 20 # length of the training that you want a schedule for
"""


def write(folder: Path) -> str:
    """Write both files, and give the line that submits them."""
    places = folder / TASK_FILE, folder / JOB_FILE
    for place in places:
        if place.exists():
            raise typer.TyperException(f"{place}: is there already; move it, or give another folder: clr init FOLDER")
    folder.mkdir(parents=True, exist_ok=True)
    for place, text in zip(places, (TASK, JOB), strict=True):
        place.write_text(text, encoding="utf-8")
    return f"clr submit {places[1]} --code {folder} --wait"
