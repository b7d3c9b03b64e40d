"""Parameters that several routes share."""

from typing import Annotated

from fastapi import Depends, Path, Request

from service import logs
from service.access.principal import Principal
from service.feed import Feed
from service.settings import Settings
from service.store.database import Database
from service.store.errors import NotFound
from service.submission import Schemas

NO_NUL = r"^[^\x00]*$"


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _schemas(request: Request) -> Schemas:
    schemas: Schemas = request.app.state.schemas
    return schemas


async def _job_id(job_id: Annotated[str, Path(description="the job's id")]) -> str:
    if "\0" in job_id:  # which PostgreSQL refuses to look for
        raise NotFound("no job's id holds a NUL character")
    logs.job_id.set(job_id)
    return job_id


async def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


async def _feed(request: Request) -> Feed:
    feed: Feed = request.app.state.feed
    return feed


DatabaseOfApp = Annotated[Database, Depends(_database)]
SettingsOfApp = Annotated[Settings, Depends(_settings)]
SchemasOfApp = Annotated[Schemas, Depends(_schemas)]
Who = Annotated[Principal, Depends(_principal)]
FeedOfApp = Annotated[Feed, Depends(_feed)]
JobId = Annotated[str, Depends(_job_id)]
