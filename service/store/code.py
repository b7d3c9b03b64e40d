"""Code bundles, by their digest. Here they survive whatever jobs do, and reach every worker that reaches the store."""

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.store.errors import NotFound
from service.store.models import CodeRow


def put(session: Session, digest: str, data: bytes, files: int) -> tuple[CodeRow, bool]:
    """Store a bundle, or find it stored; whether it is new."""
    if (earlier := find(session, digest)) is not None:
        return earlier, False
    row = CodeRow(digest=digest, data=data, size=len(data), files=files)
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:  # another upload of the same was faster
        return get(session, digest), False
    return row, True


def find(session: Session, digest: str) -> CodeRow | None:
    """What is known of a bundle, its bytes not loaded; None where there is none."""
    return session.get(CodeRow, digest, populate_existing=True)


def get(session: Session, digest: str) -> CodeRow:
    """As ``find``, of a bundle that must be there."""
    if (row := find(session, digest)) is None:
        raise NotFound(f"no code has the digest {digest!r}: upload it first, with PUT /v1/code/{digest}")
    return row


def data(session: Session, digest: str) -> bytes:
    """The bytes of a bundle."""
    found: bytes | None = session.scalar(select(CodeRow.data).where(CodeRow.digest == digest))
    if found is None:
        raise NotFound(f"no code has the digest {digest!r}")
    return found
