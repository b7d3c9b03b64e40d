"""Who enters a race: the range test's own schedule, other rates, baselines, and what Optuna chooses."""

from collections.abc import Sequence
from dataclasses import dataclass

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

    def first(self, size: int, extra: Sequence[Entrant] = ()) -> list[Entrant]:
        """Those who start: the range test's own, ``extra`` and the baselines that were named, which all enter."""
        named = self._baselines if self._are_named else []
        entered = [entrant_of(self.own, "recommended"), *extra, *named]
        return self._filled(entered, max(size, len(entered)))

    def again(self, race: Race, size: int) -> list[Entrant]:
        """Those who go on with a race that has ended once: its own, the better half, and some that are new."""
        earlier = sorted(race.entrants[1:], key=race.rank, reverse=True)
        return self._filled([race.own, *earlier[: max(1, size // 2)]], size, race.entrants)

    def safer(self, candidate: Candidate) -> Entrant:
        """Half the rate, for a schedule that collapses on some seeds."""
        return entrant_of(self._at(candidate.max_lr * SAFER, candidate))

    def _filled(self, entered: list[Entrant], size: int, known: Sequence[Entrant] = ()) -> list[Entrant]:
        """Where the range test, or trials, are sure of the rate, baselines come before others; Optuna's come last."""
        baselines, others = self._baselines, [entrant_of(one) for one in self._other_rates()]
        assert self.spec.search is not None
        sure = self.bounds.confidence != "low" or self.spec.search.trials is not None
        wanted = [*baselines[:2], *others, *baselines[2:]] if sure else [*others, *baselines]
        new = [one for one in wanted if all(one.params != there.params for there in [*entered, *known])]
        lacking = max(0, size - len(entered) - len(new))
        return [*entered, *new][:size] + [entrant_of(candidate) for candidate in self.study.suggest(lacking)]

    @property
    def _baselines(self) -> list[Entrant]:
        return [baseline_entrant(name, self.own.max_lr, self.space.length) for name in baselines_of(self.spec)]

    @property
    def _are_named(self) -> bool:
        return self.spec.confirm is not None and self.spec.confirm.baselines is not None

    def _other_rates(self) -> list[Candidate]:
        """At half and at twice the rate, as far as the limit on the rate allows."""
        highest = self.spec.range_test.max_lr or float("inf")
        rates = (rate for share in (SAFER, BOLDER) if (rate := self.own.max_lr * share) <= highest)
        return [self._at(rate, self.own) for rate in rates]

    def _at(self, rate: float, like: Candidate) -> Candidate:
        return self.space.length.propose(rate, like.max_lr / like.base_lr, like.cycles, like.policy, like.rise)


def baselines_of(spec: JobSpec) -> Sequence[str]:
    """Names of those that are compared with, as far as the budget goes."""
    if spec.confirm is None:
        return ()
    return USUAL_BASELINES if spec.confirm.baselines is None else spec.confirm.baselines
