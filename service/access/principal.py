"""Who makes a request, and the tokens by which that is known."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock

from sqlalchemy.orm import Session

from service.store import tokens
from service.store.database import Database
from service.store.models import TokenRow

LAG_S = 0.5
"""How long a process may go by what it last read of the tokens: a revoked one works no longer than that."""

USED_EVERY = timedelta(minutes=1)
"""A token's last use is written this often at most."""


@dataclass(frozen=True)
class Principal:
    """Who makes a request: a token's name and role. Without tokens it is anybody, who may do all but what only a
    token may."""

    name: str | None
    role: str

    def may(self, role: str) -> bool:
        return tokens.ROLES.index(self.role) >= tokens.ROLES.index(role)


ANYBODY = Principal(None, "admin")


def identify(session: Session, token: str) -> Principal | None:
    """Whose token it is; None when it is nobody's, or was revoked."""
    row = tokens.find(session, token)
    return None if row is None else Principal(row.name, row.role)


class Register:
    """The tokens as the store had them at most ``LAG_S`` ago, so that a request costs no query of its own."""

    def __init__(self) -> None:
        self._rows: dict[str, TokenRow] = {}
        self._read_at = float("-inf")
        self._reading = Lock()
        self.any_exist = False

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() - self._read_at < LAG_S

    def refresh(self, database: Database) -> None:
        with self._reading:
            if self.is_fresh:  # another request has just read them
                return
            read_at = time.monotonic()  # before the query: what is committed from here on is not in it
            with database.read() as session:
                rows = tokens.listed(session)
            self._rows = {row.digest: row for row in rows if row.revoked_at is None}
            self.any_exist = bool(rows)
            self._read_at = read_at

    def holder(self, token: str) -> Principal | None:
        # How long this takes depends on the digest alone, which nobody can steer towards a stored one.
        row = self._rows.get(tokens.digest(token))
        return None if row is None else Principal(row.name, row.role)

    def holds(self, principal: Principal) -> bool:
        """Whether one who was admitted would still be."""
        if principal.name is None:
            return not self.any_exist
        return any(row.name == principal.name for row in self._rows.values())

    def is_due(self, principal: Principal) -> bool:
        """Whether it is time to note that the principal's token is in use."""
        row = self._row(principal)
        return row is not None and (row.used_at is None or datetime.now(UTC) - row.used_at > USED_EVERY)

    def note(self, database: Database, principal: Principal) -> None:
        """Write that the principal's token is in use."""
        row = self._row(principal)
        if row is not None:
            row.used_at = datetime.now(UTC)
            with database.begin() as session:
                tokens.used(session, row.name)

    def _row(self, principal: Principal) -> TokenRow | None:
        return next((row for row in self._rows.values() if row.name == principal.name), None)
