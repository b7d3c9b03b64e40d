"""How far a session is, as people see it: a bar in a terminal or a notebook, lines elsewhere, or a function."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console

from clr.tuning.orders import Order
from clr.tuning.recommendation import PROVISIONAL, Recommendation
from clr.tuning.session import Session

Progress = Callable[[Session, Order | None], None]
"""Called with a session as it goes on, and with the run that went on; None at its start and its end."""


@contextmanager
def shown_by(wanted: Progress | bool | None) -> Iterator[Progress]:
    """What shows the progress: the function given, a bar, or nothing.

    Args:
        wanted: a function; True: a bar, or lines where there is no terminal; None: a bar where there is a terminal or a
            notebook; False: nothing.
    """
    console = Console(stderr=True)
    if callable(wanted):
        yield wanted
    elif wanted or (wanted is None and (console.is_terminal or console.is_jupyter)):
        with Bar(console) as bar:
            yield bar
    else:
        yield lambda session, order: None


class Bar:
    """Shows what the whole will cost, the first bounds as soon as there are any, and how far the session is.

    Where nothing can be redrawn, a line for each run and each tenth of the way.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal or console.is_jupyter
        self._bar = progress.Progress(
            progress.TextColumn("{task.description:<16}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.completed:,.0f} of at most {task.total:,.0f} steps{task.fields[loss]}"),
            progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self._live,
        )
        self._task = self._bar.add_task("", total=1, loss="")
        self._told: tuple[float | None, float | None] | None = None
        self._place: tuple[str, int] | None = None

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, session: Session, order: Order | None) -> None:
        """Show where the session is."""
        where = "" if order is None else f"{order.stage.replace('_', ' ')}, run {order.number}"
        steps, most = session.steps_so_far, session.predicted_steps
        standing = session.standing[-1:]
        loss = "".join(f", loss {one['loss']:.3g}" for one in standing if one["loss"] is not None)
        self._bar.update(self._task, description=where, completed=steps, total=most, loss=loss)
        if not self._live and order is not None and self._place != (where, 10 * steps // most):
            self._place = where, 10 * steps // most
            self._console.print(f"{where}: {steps:,} of at most {most:,} steps", highlight=False)
        found = session.recommendation
        if found is not None and (found.base_lr, found.max_lr) != self._told:
            self._told = found.base_lr, found.max_lr
            self._console.print(_sentence(found), highlight=False)


def _sentence(found: Recommendation) -> str:
    if found.base_lr is None or found.max_lr is None:
        return "inconclusive: no bounds"
    sure = "provisional" if PROVISIONAL in found.reasons else f"{found.confidence} confidence"
    return f"base_lr {found.base_lr:.3g}, max_lr {found.max_lr:.3g} ({sure})"
