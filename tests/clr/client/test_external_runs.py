"""Runs of external jobs, asked for and told through both clients."""

import asyncio

import pytest

from clr.client import sync as client_module
from clr.client.asynchronous import AsyncClient
from clr.client.sync import Client
from clr.errors import InvalidArgument
from service.store.database import Database
from tests.clr.client.conftest import Api, Relay

EXTERNAL = {"mode": "external", "task": "mine", "epochs": 10, "iterations_per_epoch": 10, "direction": "maximize"}


def external(client: Client) -> client_module.Job:
    """An external job whose range test is given."""
    job = client.submit(EXTERNAL | {"search": {"trials": 3}, "confirm": None})
    points = [{"lr": 1e-5 * 1.06**step, "loss": 2.0 if step < 100 else 1.0} for step in range(200)]
    points[-1]["loss"] = float("nan")
    bounds = job.put_range_test(points, seed=3).bounds
    assert bounds is not None
    assert job.recommendation().max_lr == pytest.approx(bounds.max_lr, rel=1e-3)
    return job


def test_an_external_job_is_trained_run_by_run_until_there_are_no_more(client: Client) -> None:
    job = external(client)
    run = job.next_run()
    assert run is not None
    assert [run.lr(step) for step in (0, run.step_size_up, run.steps)] == pytest.approx(
        [run.base_lr, run.max_lr, run.base_lr]
    )
    for _ in range(run.steps):
        run.log(loss=0.5)
    run.log(metric=0.8)
    assert run.tell().value == 0.8
    diverging = job.next_run()
    assert diverging is not None
    diverging.lr(0)
    diverging.log(loss=float("inf"))
    assert diverging.tell(float("nan")).value is None
    assert diverging.stop
    for attempt in (1, 2, 3):
        failing = job.next_run()
        assert failing is not None
        assert (failing.document["number"], failing.attempt) == (2, attempt)
        told = failing.fail("out of memory")
    assert (told.state, told.error) == ("failed", "out of memory")
    assert job.next_run() is None
    assert job.refresh().state == "succeeded"
    assert job.recommendation().max_lr == pytest.approx(run.max_lr)


def test_an_external_job_is_trained_without_blocking(client: Client, api: Api) -> None:
    job = external(client)

    async def use() -> None:
        async with AsyncClient(api.url) as twin:
            same = await twin.job(job.id)
            points = [{"lr": 1e-5 * 1.06**step, "loss": 2.0 if step < 100 else 1.0} for step in range(200)]
            assert len((await same.put_range_test(points, seed=4)).curves) == 2
            first, second = await same.next_run(), await same.next_run()
            assert first is not None
            assert second is not None
            first.lr(0)
            await first.log(loss=0.5, metric=0.7)
            assert (await first.tell(0.9)).value == 0.9
            assert (await second.fail("out of memory")).state == "running"

    asyncio.run(use())


def test_an_ask_whose_answer_is_lost_is_one_run(api: Api, store: Database, client: Client) -> None:
    job = external(client)
    relay = Relay(api.port, ["none", "lost"])
    try:
        with Client(relay.url) as unlucky:
            first = unlucky.job(job.id).next_run()
    finally:
        relay.close()
    second = job.next_run()
    assert first is not None
    assert second is not None
    assert [first.place[2], second.place[2]] == [0, 1]


def test_a_run_that_logged_nothing_is_told_with_a_value(client: Client) -> None:
    run = external(client).next_run()
    assert run is not None
    with pytest.raises(InvalidArgument, match="must be given where nothing was logged"):
        run.tell()
