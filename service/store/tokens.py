"""Tokens: who may use the service, and as what. Of a token's text only the SHA-256 is kept."""

import hashlib
import re
import secrets

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.store.clock import now
from service.store.database import changed
from service.store.errors import Conflict, NotFound, StoreError
from service.store.models import TokenRow

ROLES = ("read", "submit", "admin")
"""Each may do what those before it may."""

BOOTSTRAP = "bootstrap"
"""Name of the token whose text comes from a file."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
SHORTEST = 32


def create(session: Session, name: str, role: str) -> str:
    """Store a new token; its text, which cannot be had again."""
    if not NAME.fullmatch(name):
        raise StoreError(
            f"name: must be 1 to 64 letters, digits or . _ @ - and begin with a letter or digit, but got {name!r}"
        )
    if role not in ROLES:
        raise StoreError(f"role: must be one of {', '.join(ROLES)}, but got {role!r}")
    token = f"clr_{secrets.token_urlsafe(32)}"
    try:
        with session.begin_nested():
            session.add(TokenRow(name=name, role=role, digest=digest(token)))
    except IntegrityError:
        raise Conflict(f"name: must be new, but there is or was a token {name!r}: choose another") from None
    return token


def adopt(session: Session, token: str) -> bool:
    """Make ``token`` the one of the administrator named bootstrap; whether it was not so before."""
    if len(token) < SHORTEST or not re.fullmatch(r"[!-~]+", token):
        raise StoreError(
            f"the bootstrap token must be at least {SHORTEST} printable ASCII characters without spaces, "
            f"but has {len(token)}: make one with `openssl rand -hex 32`"
        )
    row = session.get(TokenRow, BOOTSTRAP, with_for_update=True)
    if row is None:
        session.add(TokenRow(name=BOOTSTRAP, role="admin", digest=digest(token)))
        return True
    if row.digest == digest(token):  # one that was revoked stays revoked
        return False
    row.digest, row.revoked_at, row.used_at = digest(token), None, None
    return True


def revoke(session: Session, name: str) -> None:
    """End a token for good."""
    if not changed(session, update(TokenRow).where(TokenRow.name == name).values(revoked_at=now())):
        raise NotFound(f"no token has the name {name!r}; `clr token list` lists them")


def used(session: Session, name: str) -> None:
    """Note that a token is in use."""
    changed(session, update(TokenRow).where(TokenRow.name == name).values(used_at=now()))


def hold(session: Session, name: str) -> None:
    """Hold the token's row until the transaction ends: what is counted for it meanwhile is exact."""
    session.execute(select(TokenRow.name).where(TokenRow.name == name).with_for_update())


def find(session: Session, token: str) -> TokenRow | None:
    """The token of that text, unless it was revoked."""
    return session.scalar(select(TokenRow).where(TokenRow.digest == digest(token), TokenRow.revoked_at.is_(None)))


def listed(session: Session) -> list[TokenRow]:
    """All tokens, revoked ones too, by name."""
    return list(session.scalars(select(TokenRow).order_by(TokenRow.name)))


def any_exist(session: Session) -> bool:
    """Whether there ever was a token: from then on nobody is served without one."""
    return session.scalar(select(TokenRow.name).limit(1)) is not None


def digest(token: str) -> str:
    """What is kept of a token. Its 256 random bits need neither salt nor a slow hash."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
