"""The tools of ``clr mcp``, called by the protocol's own client through a real process."""

import os
import sys
from collections.abc import Callable
from typing import Any

import anyio
import numpy as np
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.types import CallToolResult

from clr.client.sync import Client as Service
from clr.client.sync import ClientError
from service.store.database import Database
from tests.service.conftest import Run, Worker, is_one_error_line

Submit = Callable[..., dict[str, Any]]
Script = Callable[[Client], Any]

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def session(url: str, script: Script, **environment: str) -> Any:
    """What the script gives, run with a client of ``clr mcp``."""
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "service.cli", "mcp"], env=os.environ | {"CLR_URL": url, **environment}
    )

    async def run() -> Any:
        async with Client(stdio_client(command)) as client:
            return await script(client)

    return anyio.run(run)


def told(result: CallToolResult) -> str:
    return " ".join(block.text for block in result.content if block.type == "text")


@on_sqlite
def test_an_agent_submits_watches_and_reads_what_was_found(
    url: str, worker: Worker, recommendation: dict[str, Any]
) -> None:
    seen: list[tuple[float, str | None]] = []

    async def progress(done: float, _total: float | None, message: str | None) -> None:
        seen.append((done, message))

    async def script(client: Client) -> Any:
        names = [tool.name for tool in (await client.list_tools()).tools]
        tasks = await client.call_tool("tasks")
        cost = await client.call_tool("submit", {"spec": {"task": "digits"}, "dry_run": True})
        job = (await client.call_tool("submit", {"spec": {"task": "digits", "name": "agent's"}})).structured_content
        waiting = await client.call_tool("watch", {"job_id": job["id"], "timeout_s": 0.2}, progress_callback=progress)
        worker.claim()
        worker.recommend(recommendation | {"job_id": job["id"]})
        worker.end()
        ended = await client.call_tool("watch", {"job_id": job["id"]})
        found = await client.call_tool("recommend", {"job_id": job["id"]})
        lines = await client.call_tool("recommend", {"job_id": job["id"], "format": "optax"})
        again = await client.call_tool("cancel", {"job_id": job["id"]})
        return names, tasks, cost, waiting, ended, found, lines, again

    names, tasks, cost, waiting, ended, found, lines, again = session(url, script)
    assert names == ["tasks", "submit", "watch", "recommend", "analyze", "cancel"]
    assert "digits" in told(tasks)
    assert cost.structured_content["cost"]["relative_to_one_training"] > 0
    assert waiting.structured_content["state"] == "queued"
    assert seen[0] == (0.0, "queued")
    assert ended.structured_content["state"] == "succeeded"
    assert found.structured_content["max_lr"] == recommendation["max_lr"]
    assert "def schedule(step)" in lines.structured_content["text"]
    assert again.is_error
    assert "succeeded" in told(again)


@on_sqlite
def test_what_the_service_refuses_is_told_with_field_rule_and_value(url: str, worker: Worker) -> None:
    async def script(client: Client) -> Any:
        return await client.call_tool("submit", {"spec": {"task": "digits", "epochs": -3}})

    refused = session(url, script)
    assert refused.is_error
    assert "epochs" in told(refused)
    assert "-3" in told(refused)


@on_sqlite
def test_an_agent_has_the_rights_of_its_token_and_no_more(
    url: str, database: Database, worker: Worker, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLR_DATABASE_URL", database.url)
    token = run("token", "create", "--role", "read", "--name", "agent").out.strip()

    async def script(client: Client) -> Any:
        return await client.call_tool("tasks"), await client.call_tool("submit", {"spec": {"task": "digits"}})

    tasks, submitted = session(url, script, CLR_TOKEN=token)
    assert not tasks.is_error
    assert submitted.is_error
    assert "role" in told(submitted)


@on_sqlite
def test_a_curve_is_analyzed_as_the_library_reads_it(url: str) -> None:
    rates = np.geomspace(1e-4, 10, 200)
    losses = [2.3 - 1.5 / (1 + (0.03 / rate) ** 2) + (rate > 0.5) * (rate - 0.5) for rate in rates]

    async def script(client: Client) -> Any:
        return await client.call_tool("analyze", {"lr": list(rates), "loss": losses})

    found = session(url, script).structured_content
    with Service(url) as service:
        assert found == service.analyze(rates, losses).to_dict()
        with pytest.raises(ClientError, match="loss"):
            service.analyze(rates, losses[:3])
    assert found["max_lr"] > found["base_lr"] > 0


def test_without_a_service_the_agent_is_told_where_it_was_looked_for() -> None:
    async def script(client: Client) -> Any:
        return await client.call_tool("tasks")

    assert "http://127.0.0.1:9" in told(session("http://127.0.0.1:9", script))


def test_without_the_extra_one_line_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "clr.client.tool_server", raising=False)
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    ran = run("mcp")
    assert is_one_error_line(ran)
    assert "clr[mcp]" in ran.err
