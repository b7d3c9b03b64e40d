"""A service's calls as tools for agents, over the Model Context Protocol. It may do what its token may.

Needs the extra ``mcp``. ``clr mcp`` runs it on standard input and output, as agents start such servers.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated, Any, Literal

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from clr.client.asynchronous import AsyncClient
from clr.client.calls import POLL_S
from clr.errors import ClrError
from clr.tuning.formats import WRITERS, Format

INSTRUCTIONS = """\
Finds base_lr, max_lr and stepsize for a cyclical learning rate by training, and tells how sure it is.
Ask `tasks` what can be trained, `submit` a job (first with dry_run, which tells its cost in trainings), `watch` it
until it is finished, then read `recommend`: as "python" it is lines to paste. A recommendation whose confidence is
"inconclusive" has no bounds: pass its reasons on rather than guessing. `analyze` reads bounds from a curve.
"""

WATCHED_S = 50.0
"""How long ``watch`` waits unless told: below the minute after which clients give a call up."""

Id = Annotated[str, Field(description="the job's id, as submit gave it")]
Document = dict[str, Any]
READS = ToolAnnotations(read_only_hint=True)


def tool_server(url: str | None = None, token: str | None = None) -> MCPServer[None]:
    """The server; ``run()`` it, or connect a client to it.

    Args:
        url, token: as ``clr.Client``'s; the tools have the token's rights.

    Raises:
        InvalidArgument: ``url`` is not an http or https address.
    """
    client = AsyncClient(url, token)

    @asynccontextmanager
    async def lifespan(_server: MCPServer[None]) -> AsyncIterator[None]:
        async with client:
            yield

    server: MCPServer[None] = MCPServer("clr", instructions=INSTRUCTIONS, version=version("clr"), lifespan=lifespan)
    tools = _Tools(client)
    server.tool(annotations=READS)(tools.tasks)
    server.tool()(tools.submit)
    server.tool(annotations=READS)(tools.watch)
    server.tool(annotations=READS)(tools.recommend)
    server.tool(annotations=READS)(tools.analyze)
    server.tool(annotations=ToolAnnotations(destructive_hint=True))(tools.cancel)
    return server


class _Tools:
    """What an agent may call: names, descriptions and schemas are read from the methods."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def tasks(self) -> list[Document]:
        """What can be trained: each task's name, what it is, and the JSON schema of its arguments."""
        async with _told():
            return await self._client.tasks()

    async def submit(
        self,
        spec: Annotated[
            Document,
            Field(
                description="the job: task (required), args, epochs (length of the training to recommend for), "
                'optimizer {"name": "AdamW", "args": {}}, batch_size, budget (how many trainings finding it may cost), '
                "seed, name; what is left out has a default or is the task's own"
            ),
        ],
        dry_run: Annotated[bool, Field(description="store nothing: tell the whole spec and its cost")] = False,
    ) -> Document:
        """Submit a job to find learning-rate bounds for a training. Gives the job, with its id."""
        async with _told():
            return await self._client.predict(spec) if dry_run else (await self._client.submit(spec)).document

    async def watch(
        self,
        job_id: Id,
        context: Context[None],
        timeout_s: Annotated[
            float, Field(ge=0, le=3600, description="seconds to wait for its end at most")
        ] = WATCHED_S,
    ) -> Document:
        """Wait until a job is finished, or until the time is over; gives the job as it then stands."""
        deadline = time.monotonic() + timeout_s
        async with _told():
            job = await self._client.job(job_id)
            while not job.finished and time.monotonic() < deadline:
                await context.report_progress(job.progress, 1.0, job.document["stage"] or job.state)
                await anyio.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))
                await job.refresh()
            return job.document

    async def recommend(
        self,
        job_id: Id,
        format: Annotated[Format, Field(description="json: all of it; all others: text to paste or print")] = "json",
    ) -> Document:
        """What a job found, so far or in the end: bounds, stepsize, confidence, reasons, warnings and evidence."""
        async with _told():
            found = await self._client.recommendation(job_id)
        return found.to_dict() if format == "json" else {"format": format, "text": WRITERS[format](found)}

    async def analyze(
        self,
        lr: Annotated[list[float], Field(description="the rate of each step of a range test")],
        loss: Annotated[list[float | None], Field(description="the training loss at it; null where it was not finite")],
        metric: Annotated[
            list[float | None] | None, Field(description="of validation data, null where not taken")
        ] = None,
        direction: Annotated[Literal["maximize", "minimize"], Field(description="of the metric")] = "maximize",
    ) -> Document:
        """Read base_lr and max_lr from the curve of a range test run anywhere. Stores nothing."""
        async with _told():
            return (await self._client.analyze(lr, loss, metric, direction)).to_dict()

    async def cancel(self, job_id: Id) -> Document:
        """Stop a job; what was found stays."""
        async with _told():
            return (await (await self._client.job(job_id)).cancel()).document


@asynccontextmanager
async def _told() -> AsyncIterator[None]:
    """What the service refuses is told to the agent in its own words: they name field, rule and value."""
    try:
        yield
    except ClrError as error:
        raise ToolError(str(error)) from None
