"""A session carried out here, one run after the other or in packs, whatever trains them. No torch."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clr.errors import ProgramDied
from clr.run import Point, Run
from clr.tuning.orders import Order
from clr.tuning.saved_runs import SavedRuns
from clr.tuning.session import Session

if TYPE_CHECKING:
    from clr.tuning.progress import Progress

ATTEMPTS = 3
"""A run of a program is started this often before its failure is that of the whole."""

Train = Callable[[Order, int], Iterator[Point]]
"""Trains a run, for the first time or once more, and yields its points; who pulls no more of them stops it."""

Pack = Callable[[Sequence[Run]], Generator[tuple[int, Point], bool | None, None]]
"""Trains runs side by side, and yields the points of each with its place among them; sent true, it trains that run no
further. Those that have not ended when it does are to be trained once more, one after the other."""


def carry_out(
    session: Session,
    train: Train,
    *,
    pack: Pack | None = None,
    save: str | Path | None = None,
    progress: "Progress | bool | None" = None,
) -> Session:
    """Carry a session out.

    Args:
        session: new.
        train: what trains a run.
        pack: what trains several at once; None: they are trained one after the other.
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

        def end(order: Order) -> None:
            told = session.end(order.stage, order.number)
            if saved is not None:
                saved.record(session, told)

        def keep() -> None:
            if saved is not None:
                for told in session.broken_off:
                    saved.record(session, told)

        tell(None)
        try:
            while orders := session.next_ones(together=pack is not None):
                tell(orders[0])
                for order in orders if pack is None else _packed(session, orders, pack, tell, end):
                    _follow(session, order, train, tell, keep)
                    end(order)
        except BaseException:
            keep()
            raise
        assert not session.under_way, "a run is under way that nobody trains"
        tell(None)
    return session


def _packed(
    session: Session,
    orders: Sequence[Order],
    pack: Pack,
    tell: Callable[[Order], None],
    end: Callable[[Order], None],
) -> list[Order]:
    """Let runs be trained side by side, each until it ends or is worth no more steps; those that it was not."""
    left = dict(enumerate(orders))
    points, stop = pack([order.run for order in orders]), None
    with suppress(StopIteration):
        while True:
            at, point = points.send(stop)
            order = left[at]
            stop = session.hear(order.stage, order.number, [point]).stop
            tell(order)
            if stop or point.step == order.run.steps:
                end(left.pop(at))
    return [session.hand_out_again(order.stage, order.number) for order in left.values()]


def _follow(
    session: Session,
    order: Order,
    train: Train,
    tell: Callable[[Order], None],
    keep: Callable[[], None],
) -> None:
    """Let a run be trained until it ends, or is worth no more steps; ``keep`` is called where an attempt is lost."""
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
            keep()
