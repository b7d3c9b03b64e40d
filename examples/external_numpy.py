"""A trainer of your own on a running service: a network in plain NumPy, its learning rate found over REST.

    clr serve &
    python examples/external_numpy.py http://127.0.0.1:8000     # default: CLR_URL and CLR_TOKEN, or that address

It asks for runs, trains and reports them until the job is over: ramps and short cycles of the range test first, then
schedules beside each other.
Several of these may work on one job: give them its id as second argument.
"""

import sys
from collections.abc import Callable, Iterator

import numpy as np
from sklearn.datasets import load_digits

from clr.client import Client, Job

BATCH, EPOCHS, HIDDEN, MOMENTUM = 50, 10, 64, 0.9

X, Y = load_digits(return_X_y=True)
X = X / 16
TRAIN, VALIDATION = slice(0, 1200), slice(1200, None)
ITERATIONS_PER_EPOCH = 1200 // BATCH

Weights = list[np.ndarray]


def main(url: str | None = None, job_id: str | None = None) -> None:
    """Take part in a job, or submit one, and print what it found."""
    with Client(url) as client:
        job = client.job(job_id) if job_id else begin(client)
        while (run := job.next_run()) is not None:
            for step, loss, weights in train(run.lr, run.steps, run.seed):
                run.log(loss=loss, metric=score(weights) if run.evaluates(step - 1) else None)
                if run.stop or not np.isfinite(loss):
                    break
            run.tell()
            print(f"{run.document['stage']} run {run.document['number']}: {run.base_lr:.3g} to {run.max_lr:.3g}")
        print(job.recommendation().to_python())


def begin(client: Client) -> Job:
    """Submit a job."""
    length = {"epochs": EPOCHS, "iterations_per_epoch": ITERATIONS_PER_EPOCH, "direction": "maximize"}
    job = client.submit({"mode": "external", "task": "digits in NumPy", **length})
    print(f"job {job.id}")
    return job


def train(lr: Callable[[int], float], steps: int, seed: int) -> Iterator[tuple[int, float, Weights]]:
    """One hidden layer under SGD with momentum: steps taken, loss before the last of them, weights after it."""
    random = np.random.default_rng(seed)
    shapes = ((64, HIDDEN), (HIDDEN,), (HIDDEN, 10), (10,))
    weights = [random.normal(0, 0.1, shape) for shape in shapes]
    velocity = [np.zeros(shape) for shape in shapes]
    for step in range(steps):
        if step % ITERATIONS_PER_EPOCH == 0:
            order = random.permutation(1200)
        batch = order[np.arange(BATCH) + step % ITERATIONS_PER_EPOCH * BATCH]
        with np.errstate(all="ignore"):  # a ramp goes on until it diverges
            loss, gradients = backpropagate(weights, X[TRAIN][batch], Y[TRAIN][batch])
            for i, gradient in enumerate(gradients):
                velocity[i] = MOMENTUM * velocity[i] + gradient
                weights[i] = weights[i] - lr(step) * velocity[i]
        yield step + 1, loss, weights


def backpropagate(weights: Weights, x: np.ndarray, y: np.ndarray) -> tuple[float, Weights]:
    """Cross-entropy of a batch, and its gradients."""
    w1, b1, w2, b2 = weights
    hidden = np.maximum(0, x @ w1 + b1)
    logits = hidden @ w2 + b2
    logits = logits - logits.max(axis=1, keepdims=True)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]))
    error = (p - np.eye(10)[y]) / len(y)
    back = error @ w2.T * (hidden > 0)
    return loss, [x.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]


def score(weights: Weights) -> float:
    """Accuracy on the validation data."""
    w1, b1, w2, b2 = weights
    with np.errstate(all="ignore"):
        logits = np.maximum(0, X[VALIDATION] @ w1 + b1) @ w2 + b2
    return float(np.mean(logits.argmax(axis=1) == Y[VALIDATION]))


if __name__ == "__main__":
    main(*sys.argv[1:])
