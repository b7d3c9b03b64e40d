"""Who enters a race: the range test's own schedule, other rates, baselines, and what Optuna chooses."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from clr.range_tests.bounds import Bounds
from clr.schedules.cycles import Candidate
from clr.spec import JobSpec
from clr.trials.baselines import USUAL_BASELINES
from clr.trials.race import BOLDER, SAFER, Entrant, Race, baseline_entrant, entrant_of
from clr.trials.space import SearchSpace
from clr.trials.study import Study


@dataclass(frozen=True)
class Field:
    """Entrants of one job's races.

    Args:
        spec: which baselines, and the highest rate.
        bounds: conclusive, of the range test.
        space: schedules of trainings as long as those in the race.
        study: chooses where nothing else is left to enter.
    """

    spec: JobSpec
    bounds: Bounds
    space: SearchSpace
    study: Study

    @property
    def own(self) -> Candidate:
        """The range test's own schedule."""
        candidate = self.space.own(self.bounds)
        assert candidate is not None
        return candidate

    @property
    def recommended(self) -> Entrant:
        """The range test's own, as an entrant."""
        return entrant_of(self.own, "recommended")

    def starters(self, race: Race, size: int) -> list[Entrant]:
        """Those who start: all so far where none has trained, else the favourite and the better half; and new ones."""
        if not race.has_begun:
            return self._filled(race.entrants, size, named=True)
        earlier = sorted((one for one in race.entrants if one is not race.favourite), key=race.rank, reverse=True)
        return self._filled([race.favourite, *earlier[: max(1, size // 2)]], size, race.entrants)

    def located(self, race: Race, favourite: Entrant, size: int) -> list[Entrant]:
        """Those who go on once the best rate has been looked for: the schedule at it, and baselines."""
        return self._filled([favourite], size, race.entrants, named=True)

    def at(self, max_lr: float) -> Entrant | None:
        """The range test's own at another rate; None above the limit on the rate."""
        return None if max_lr > (self.spec.range_test.max_lr or inf) else self._like(self.own, max_lr)

    def safer(self, candidate: Candidate) -> Entrant:
        """Half the rate, for a schedule that collapses on some seeds."""
        return self._like(candidate, candidate.max_lr * SAFER)

    def _like(self, one: Candidate, max_lr: float) -> Entrant:
        return entrant_of(self.space.length.propose(max_lr, one.max_lr / one.base_lr, one.cycles, one.policy, one.rise))

    def _filled(
        self, entered: Sequence[Entrant], size: int, known: Sequence[Entrant] = (), named: bool = False
    ) -> list[Entrant]:
        """Two baselines come before other rates, and further ones after them; Optuna's schedules come last."""
        assert entered[0].candidate is not None
        rate = entered[0].candidate.max_lr
        baselines = [baseline_entrant(name, rate, self.space.length) for name in baselines_of(self.spec)]
        others = [one for share in (SAFER, BOLDER) if (one := self.at(self.own.max_lr * share)) is not None]
        wanted = [*baselines[:2], *others, *baselines[2:]]
        if named and self.spec.confirm is not None and self.spec.confirm.baselines is not None:
            entered, wanted = [*entered, *baselines], others
        new = [one for one in wanted if all(one.params != there.params for there in [*entered, *known])]
        size = max(size, len(entered))
        lacking = max(0, size - len(entered) - len(new))
        return [*entered, *new][:size] + [entrant_of(candidate) for candidate in self.study.suggest(lacking)]


def baselines_of(spec: JobSpec) -> Sequence[str]:
    """Names of those that are compared with, as far as the budget goes."""
    if spec.confirm is None:
        return ()
    return USUAL_BASELINES if spec.confirm.baselines is None else spec.confirm.baselines
