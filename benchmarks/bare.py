"""What the API is measured against: FastAPI and SQLAlchemy, one statement a request, over the same database."""

import os
from typing import Any
from uuid import uuid4

from fastapi import FastAPI
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from service.app import create_app
from service.settings import Settings
from service.store.database import Base, Database


class Bare(DeclarativeBase):
    """Root of what is no part of the service's schema."""

    type_annotation_map = Base.type_annotation_map


class BareRow(Bare):
    """A document by its id."""

    __tablename__ = "bare"

    id: Mapped[str] = mapped_column(primary_key=True)
    document: Mapped[dict[str, Any]]


def ours() -> FastAPI:
    """The API."""
    return create_app(Settings())


def bare() -> FastAPI:
    """Nothing but an insert and a read."""
    app, database = FastAPI(), Database(os.environ["CLR_DATABASE_URL"])

    @app.post("/rows", status_code=201)
    def insert(document: dict[str, Any]) -> dict[str, Any]:
        with database.begin() as session:
            row = BareRow(id=uuid4().hex, document=document)
            session.add(row)
        return {"id": row.id, "document": row.document}

    @app.get("/rows/{row_id}")
    def read(row_id: str) -> dict[str, Any]:
        with database.read() as session:
            row = session.get_one(BareRow, row_id)
        return row.document

    return app
