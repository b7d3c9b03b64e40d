"""The main job as its user does it: one command, a POST, the recommendation, its bytes pasted into a training."""

import httpx
import pytest
import torch

import clr
from clr.client.sync import Client
from clr.schedules.policies import schedule

SPEC = {"task": "digits", "epochs": 10, "search": {"trials": 4}, "confirm": {"seeds": 2, "baselines": ["fixed"]}}


@pytest.mark.timeout(240)
def test_a_posted_job_ends_in_a_recommendation_whose_bytes_train(url: str) -> None:
    with Client(url) as client, httpx.Client(base_url=url, timeout=30) as curl:
        job = client.submit(SPEC)
        assert job.wait(timeout_s=200).state == "succeeded"
        path = f"/v1/jobs/{job.id}"
        found = curl.get(f"{path}/recommendation").json()
        assert found["source"] == "confirm"
        assert found["evidence"]["runs"][0]["name"] == "recommended"
        rates = train_with(curl.get(f"{path}/recommendation", params={"format": "python"}).text, 2 * found["stepsize"])
        bounds = {"base_lr": found["base_lr"], "max_lr": found["max_lr"]}
        rate = schedule("triangular", **bounds, stepsize=found["step_size_up"], stepsize_down=found["step_size_down"])
        assert rates == pytest.approx([rate(step) for step in range(2 * found["stepsize"])], rel=1e-6)
        assert curl.get(f"{path}/range-test.png").content.startswith(b"\x89PNG")
        assert curl.get(f"{path}/range-test", headers={"Accept": "text/csv"}).text.startswith("lr,loss,metric,seed")
        assert len(curl.get(f"{path}/trials").json()["items"]) == 4
        assert job.id in curl.get("/api/studies").text
        assert curl.get("/v1/recommendations?task=digits").json()["items"][0]["job_id"] == job.id
        assert curl.delete(path).status_code == 204
        assert job.id not in curl.get("/api/studies").text


def train_with(pasted: str, steps: int) -> list[float]:
    """Train the task with the pasted lines; the rate of each step. The network must have learnt."""
    task = clr.load_task("digits")
    x, y = task.train
    model = task.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scope = {"optimizer": optimizer}
    exec(pasted, scope)
    rates, losses = [], []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        batch = torch.arange(64 * step, 64 * (step + 1)) % len(x)
        loss = task.loss(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scope["scheduler"].step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    return rates
