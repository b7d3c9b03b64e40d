"""The runs of a session in one SQLite file, so that it goes on where it was broken off; its study beside them."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cached_property
from pathlib import Path

from clr.errors import InvalidArgument
from clr.run import Point, Run
from clr.trials.study import StudyMirror, stored_in
from clr.tuning.orders import Order, ToldRun
from clr.tuning.session import Session

TABLE = """\
CREATE TABLE IF NOT EXISTS saved_runs (
    session TEXT, stage TEXT, number INTEGER, run TEXT, params TEXT, state TEXT, value REAL, points TEXT,
    repeated INTEGER,
    PRIMARY KEY (session, stage, number)
)"""


class SavedRuns:
    """What one session was told, in a file that other sessions may share.

    Args:
        path: of the file; made where there is none.
        session: whose runs; what it is of tells it from others.

    Raises:
        InvalidArgument: the file is no SQLite database, or cannot be written.
    """

    def __init__(self, path: str | Path, session: Session) -> None:
        self.path, self.key = Path(path), _key(session)
        self.name, self.attributes = f"{session.spec.name} {self.key[:8]}", session.attributes
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as file, file:
                file.execute(TABLE)
        except (sqlite3.DatabaseError, OSError) as error:
            raise InvalidArgument("save", f"must be an SQLite file that can be written ({error})", str(path)) from None

    def read(self) -> Iterator[ToldRun]:
        """The runs that ended or were broken off, by number."""
        columns = "stage, number, run, params, state, value, points, repeated"
        query = f"SELECT {columns} FROM saved_runs WHERE session = ? ORDER BY number"
        with closing(self._open()) as file:
            rows = file.execute(query, (self.key,)).fetchall()
        for stage, number, run, params, state, value, points, repeated in rows:
            order = Order(stage, number, Run(**json.loads(run)), json.loads(params))
            yield ToldRun(order, state, [Point.from_dict(point) for point in json.loads(points)], value, repeated)

    def record(self, session: Session, told: ToldRun) -> None:
        """Keep a run that has ended or was broken off, and show its trial in the study of the session's name."""
        order = told.order
        points = json.dumps([point.to_dict() for point in told.points])
        row = (json.dumps(order.run.to_dict()), json.dumps(order.params), told.state, told.value, points, told.repeated)
        with closing(self._open()) as file, file:
            file.execute(
                "INSERT OR REPLACE INTO saved_runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (self.key, order.stage, order.number, *row),
            )
        if session.study is not None:
            self._mirror.show(session.study)

    @cached_property
    def _mirror(self) -> StudyMirror:
        return StudyMirror(stored_in(self.path), self.name, self.attributes)

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=60)


def _key(session: Session) -> str:
    """Tells one session from another: all that its runs follow from."""
    length = session.training.length
    given = session.spec.model_dump(mode="json", exclude={"name", "priority", "limits", "resources"})
    of = [given, length.epochs, length.iterations_per_epoch, session.training.metric, session.training.direction]
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
