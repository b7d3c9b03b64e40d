"""Parameters that several routes share."""

from typing import Annotated

from fastapi import Depends, Path, Request

from service.settings import Settings
from service.store.database import Database
from service.store.errors import NotFound

NO_NUL = r"^[^\x00]*$"


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _job_id(job_id: Annotated[str, Path(description="the job's id")]) -> str:
    if "\0" in job_id:  # which PostgreSQL refuses to look for
        raise NotFound("no job's id holds a NUL character")
    return job_id


DatabaseOfApp = Annotated[Database, Depends(_database)]
SettingsOfApp = Annotated[Settings, Depends(_settings)]
JobId = Annotated[str, Depends(_job_id)]
