"""Runs of a session that are handed out together: of the range test, trials of a search, or a round of a race."""

from collections.abc import Mapping, Sequence
from typing import Any

from clr.run import Run
from clr.trials.race import Heat
from clr.trials.study import Study
from clr.tuning.orders import Stage, ToldRun


class Block:
    """Runs that are handed out together, in order; what follows them depends on how they ended.

    ``at_once`` tells whether they can all be handed out before any has ended, and still be the same.
    """

    at_once = True

    def __init__(self, stage: Stage, runs: Sequence[tuple[Run, dict[str, Any]]]) -> None:
        self.stage, self.runs = stage, runs
        self.asked = 0
        self.told: dict[int, ToldRun] = {}

    def ask(self, _number: int, _known: Mapping[str, Any] | None) -> tuple[Run, dict[str, Any]] | None:
        """The next run and what people read of it; None where all are handed out.

        Args:
            _number: the run's, within its stage.
            _known: what people read of it, where it was handed out before.
        """
        if self.asked == len(self.runs):
            return None
        self.asked += 1
        return self.runs[self.asked - 1]

    def tell(self, told: ToldRun) -> None:
        """Take note of how a run has ended."""
        self.told[told.order.number] = told

    @property
    def is_over(self) -> bool:
        """Whether all of its runs have ended."""
        return len(self.told) == len(self.runs)

    @property
    def ended(self) -> list[ToldRun]:
        """The runs by number."""
        return [self.told[number] for number in sorted(self.told)]


class Trials(Block):
    """Trials that the study chooses as they are asked for, by how those before them ended."""

    at_once = False

    def __init__(self, study: Study, trials: int, seed: int) -> None:
        super().__init__("search", [])
        self.study, self.trials, self.seed = study, trials, seed

    def ask(self, number: int, known: Mapping[str, Any] | None) -> tuple[Run, dict[str, Any]] | None:
        """The next trial; None where there are as many as were asked for."""
        if number >= self.trials:
            return None
        _, candidate = self.study.ask(known)
        return candidate.run(self.seed), candidate.to_dict()

    def tell(self, told: ToldRun) -> None:
        """Take note of how a trial has ended."""
        super().tell(told)
        self.study.tell(told.order.number, told.value, failed=told.state == "failed")

    @property
    def is_over(self) -> bool:
        """Whether all trials have ended."""
        return len(self.told) == self.trials


class Heats(Block):
    """A round of the race; in the stage of the search each of its runs is a trial of the study."""

    def __init__(self, stage: Stage, heats: Sequence[Heat], study: Study) -> None:
        super().__init__(stage, [(heat.run, heat.params | {"name": heat.entrant.name}) for heat in heats])
        self.heats, self.study = heats, study

    def ask(self, number: int, known: Mapping[str, Any] | None) -> tuple[Run, dict[str, Any]] | None:
        """The next heat; in the search it is a trial of the study's, too."""
        made = super().ask(number, known)
        if made is None or self.stage != "search":
            return made
        run, params = made
        entrant = self.heats[self.asked - 1].entrant
        if entrant.candidate is None:
            self.study.place(**params, steps=run.steps, seed=run.seed)
        else:
            self.study.ask(params, name=entrant.name, seed=run.seed)
        return made

    def tell(self, told: ToldRun) -> None:
        """Take note of how a heat has ended."""
        super().tell(told)
        if self.stage == "search":
            self.study.tell(told.order.number, told.value, failed=told.state == "failed")
