"""A session carried out here, one run after the other, whatever trains them. No torch."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clr.errors import ProgramDied
from clr.run import Point
from clr.tuning.orders import Order, Over, Waiting
from clr.tuning.saved_runs import SavedRuns
from clr.tuning.session import Session

if TYPE_CHECKING:
    from clr.tuning.progress import Progress

ATTEMPTS = 3
"""A run of a program is started this often before its failure is that of the whole."""

Train = Callable[[Order, int], Iterator[Point]]
"""Trains a run, for the first time or once more, and yields its points; who pulls no more of them stops it."""


def carry_out(
    session: Session,
    train: Train,
    *,
    save: str | Path | None = None,
    progress: "Progress | bool | None" = None,
) -> Session:
    """Carry a session out, one run after the other.

    Args:
        session: new.
        train: what trains a run.
        save, progress: as for ``recommend``.

    Raises:
        ProgramDied: ``train`` raised it three times for one run, or before there was any point.
    """
    from clr.tuning.progress import shown_by  # importing rich draws a random number: not before states are kept

    began = time.monotonic()
    saved = None if save is None else SavedRuns(save, session)
    if saved is not None:
        session.restore(saved.read())
    with shown_by(progress) as show:

        def tell(order: Order | None) -> None:
            session.seconds = time.monotonic() - began
            show(session, order)

        tell(None)
        while not isinstance(order := session.next(), Over):
            assert not isinstance(order, Waiting), "a run is under way that nobody trains"
            tell(order)
            _follow(session, order, train, tell)
            told = session.end(order.stage, order.number)
            if saved is not None:
                saved.record(session, told)
        tell(None)
    return session


def _follow(
    session: Session,
    order: Order,
    train: Train,
    tell: Callable[[Order], None],
) -> None:
    """Let a run be trained until it ends, or is worth no more steps."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            for point in train(order, attempt):
                advice = session.hear(order.stage, order.number, [point])
                tell(order)
                if advice.stop:
                    break
            return
        except ProgramDied:
            if attempt == ATTEMPTS or session.steps_so_far == 0:  # one that never reported is broken, not unlucky
                raise
            session.hand_out_again(order.stage, order.number)
