"""The race: candidates and baselines train side by side on fresh seeds that all share, and the field is halved.

Training on the same seed takes most of what luck does out of a difference. Whoever has fallen behind gets no further
seed, so that the trainings go to where the answer may still change. The favourite is in every round, which is the range
test's own schedule, or one at a better rate (``clr.trials.location``): nothing replaces it that was lucky once.
"""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any, NamedTuple

from scipy.special import stdtrit

from clr.run import Direction, Point, Run
from clr.schedules.cycles import Candidate, TrainingLength, way_of
from clr.trials.baselines import BASELINES, did_better
from clr.trials.best_rate import PRIOR_WEIGHT, SEED_NOISE

LEVEL = 0.9
"""Two-sided level at which a difference counts."""

ALIKE = 0.005
"""Share of what a training gains below which two schedules are as good as each other: nobody would switch for it."""

FRAGILE = 0.1
"""Share of what a training gains that the worst seed of a schedule may lie below its best; a schedule that falls
further collapses on some seeds."""

SAFER, BOLDER = 0.5, 2.0
"""Of the range test's rate, where others are tried first: the factor within which the paper places the best rate."""


NOT_COMPARED = "no baseline was trained"
"""The verdict where the trainings all went to the rate."""


class Peak(NamedTuple):
    """The best score within a training, at its end or before.

    Args:
        value: the score.
        share: of the way that the training goes, the sum of its rates, that was gone by then.
    """

    value: float
    share: float

    @classmethod
    def of(cls, run: Run, points: Sequence[Point], sign: int) -> "Peak | None":
        """Of what ran; None without a score. ``sign`` is -1 where a smaller score is better."""
        scores = [(sign * point.metric, -point.step) for point in points if point.metric is not None]
        if not scores:
            return None
        value, step = max(scores)
        return cls(sign * value, way_of(run, -step) / way_of(run, run.steps))


@dataclass(eq=False)
class Entrant:
    """A schedule in the race: a candidate of ours, or a baseline at one rate.

    Args:
        name: "recommended" for the range test's own, "candidate" for another, else the baseline's.
        make: the run that trains it on a seed.
        params: what people read of it.
        candidate: None for a baseline.
        lr: a baseline's own rate.
        values: by seed, as far as it was trained; None where it diverged or failed.
        peaks: likewise, the best that was scored within those trainings.
    """

    name: str
    make: Callable[[int], Run]
    params: dict[str, Any]
    candidate: Candidate | None = None
    lr: float | None = None
    values: dict[int, float | None] = field(default_factory=dict)
    peaks: dict[int, Peak | None] = field(default_factory=dict)

    @property
    def known(self) -> list[float]:
        """Its finite values, in the order of the seeds."""
        return [value for value in self.values.values() if value is not None]

    @property
    def mean(self) -> float | None:
        """Over its seeds; None where one of them diverged."""
        return fmean(self.known) if self.values and len(self.known) == len(self.values) else None


class Lead(NamedTuple):
    """Mean paired difference in favour of the first, its standard error, and how large it must be to count."""

    difference: float
    error: float
    needed: float

    @property
    def counts(self) -> bool:
        """Whether it is more than chance, and worth minding."""
        return abs(self.difference) > self.needed


class Heat(NamedTuple):
    """A training of one entrant on one seed."""

    run: Run
    params: dict[str, Any]
    entrant: Entrant


class Race:
    """What the trainings so far say.

    Args:
        entrants: the field at the start, the range test's own first.
        direction: whether larger values are better.
        floor: value of an untrained network, where it is known.
    """

    def __init__(self, entrants: Sequence[Entrant], direction: Direction, floor: float | None) -> None:
        self.entrants, self.sign, self.floor = list(entrants), 1 if direction == "maximize" else -1, floor
        self.favourite = self.own
        """Whom the others are compared with."""
        self.assumed = SEED_NOISE, PRIOR_WEIGHT
        """Noise from seed to seed, a share of the gain, before any has trained on two; and what that is worth."""

    @property
    def own(self) -> Entrant:
        """The range test's own schedule."""
        return self.entrants[0]

    @property
    def has_begun(self) -> bool:
        """Whether anything was trained."""
        return any(one.values for one in self.entrants)

    @property
    def gain(self) -> float:
        """What a training gains over an untrained network; the whole spread of the values where that is not known."""
        values = [value for one in self.entrants for value in one.known]
        if not values:
            return 0.0
        if self.floor is None:
            return max(values) - min(values)
        return max(0.0, max(self.sign * (value - self.floor) for value in values))

    @property
    def noise(self) -> tuple[float, float]:
        """Standard deviation of a value from seed to seed, what all share aside, and its degrees of freedom."""
        several = [one for one in self.entrants if len(one.known) > 1 and one.mean is not None]
        shared = _seed_effects(several)
        residuals = [
            value - fmean(one.known) - shared.get(seed, 0.0)
            for one in several
            for seed, value in one.values.items()
            if value is not None
        ]
        freedom = max(0.0, len(residuals) - len(several) - max(0, len(shared) - 1))
        share, weight = self.assumed
        assumed = weight * (share * self.gain) ** 2
        squares = sum(residual**2 for residual in residuals) if freedom else 0.0
        return math.sqrt((assumed + squares) / (weight + freedom)), weight + freedom

    def lead(self, first: Entrant, second: Entrant) -> Lead | None:
        """How far the first is ahead on the seeds both trained on; None without such, or where one diverged."""
        shared = [seed for seed in first.values if seed in second.values]
        pairs = [(first.values[seed], second.values[seed]) for seed in shared]
        differences = [self.sign * (a - b) for a, b in pairs if a is not None and b is not None]
        if not differences or len(differences) < len(pairs):
            return None
        sd, freedom = self.noise
        error = sd * math.sqrt(2 / len(differences))
        difference = fmean(differences)
        needed = max(float(stdtrit(freedom, (1 + LEVEL) / 2)) * error, ALIKE * self.gain)
        return Lead(difference, error, needed)

    def is_fragile(self, one: Entrant) -> bool:
        """Whether some seed diverged, or ended far below the mean of what the entrant reached."""
        if not one.values:
            return False
        if one.mean is None:
            return True
        worst = min(self.sign * value for value in one.known)
        best = max(self.sign * value for value in one.known)
        return best - worst > FRAGILE * self.gain

    def rank(self, one: Entrant) -> float:
        """Larger is better; by the difference to the favourite on shared seeds."""
        if one is self.favourite:
            return 0.0 if self.favourite.mean is not None else -math.inf
        lead = self.lead(one, self.favourite)
        if lead is not None:
            return lead.difference
        return self.sign * one.mean if one.mean is not None and self.favourite.mean is None else -math.inf

    def promise(self, one: Entrant) -> tuple[bool, float]:
        """Larger for those whose next training may change more.

        A candidate that is ahead may be recommended; of the rest those come first whose difference is the nearest to
        counting, since the others are settled already, or as good as each other.
        """
        lead = self.lead(one, self.favourite)
        if lead is None:
            return False, self.rank(one)
        ahead = one.candidate is not None and lead.difference > 0
        if one.candidate is None and not lead.counts:
            return False, abs(lead.difference) / (lead.needed or math.inf)
        return ahead, lead.difference if ahead else -1.0 - abs(lead.difference)

    @property
    def winner(self) -> Entrant | None:
        """The candidate to recommend; None where each of them diverged.

        The favourite, unless another was trained on as many seeds, at least two, and is ahead by more than the error of
        the difference; or the favourite is fragile and another is not, on two seeds too.
        """
        ours = [one for one in self.entrants if one.candidate is not None and one.mean is not None]
        if not ours:
            return None
        seeds = min(2, len(self.favourite.values)) if self.favourite.mean is not None else 1
        solid = [one for one in ours if len(one.values) >= seeds and not self.is_fragile(one)]
        if not solid and self.favourite in ours:
            return self.favourite
        best = max(solid or ours, key=self.rank)
        if self.favourite not in solid:
            return best
        lead = self.lead(best, self.favourite)
        proven = (
            len(best.values) >= max(2, len(self.favourite.values)) and lead is not None and lead.difference > lead.error
        )
        return best if proven else self.favourite

    @property
    def is_decided(self) -> bool:
        """Whether each of the others is clearly ahead or behind, or as good as the winner within what anybody minds."""
        winner = self.winner
        if winner is None or len(winner.values) < 2:
            return False
        leads = [self.lead(winner, one) for one in self.entrants if one is not winner and one.values]
        return all(
            lead is None or lead.counts or abs(lead.difference) + lead.error < ALIKE * self.gain for lead in leads
        )


def _seed_effects(several: Sequence[Entrant]) -> dict[int, float]:
    """What each seed adds to all that trained on it; nothing can be said of one that a single entrant had."""
    deviations: dict[int, list[float]] = {}
    for one in several:
        mean = fmean(one.known)
        for seed, value in one.values.items():
            if value is not None:
                deviations.setdefault(seed, []).append(value - mean)
    return {seed: fmean(found) for seed, found in deviations.items() if len(found) > 1}


def field_size(trainings: int) -> int:
    """How many may enter a race of so many trainings: halved after each round, two train on at least two seeds.

    >>> [field_size(trainings) for trainings in (1, 2, 3, 5, 11)]
    [0, 2, 3, 3, 6]
    """
    if trainings < 4:
        return 0 if trainings < 2 else trainings
    size = 2
    while race_cost(size + 1) <= trainings:
        size += 1
    return size


def race_cost(size: int) -> int:
    """Trainings of a race of so many, until two are left and have trained once more."""
    return size if size <= 2 else size + race_cost(max(2, math.ceil(size / 2)))


def race_plan(
    race: Race,
    field: Sequence[Entrant],
    trainings: int,
    seeds: Iterator[int],
    safer: Callable[[Candidate], Entrant],
) -> Generator[list[Heat], list[float | None], int]:
    """Rounds of the race: each a fresh seed for all that are still in it.

    Args:
        race: all that ever entered.
        field: those who start, no more than ``field_size(trainings)``; the first is the favourite once it has trained.
        trainings: how many there may be.
        seeds: fresh ones, at least half as many.
        safer: a safer entrant than the candidate given, when that turns out to be fragile.

    Returns:
        How many were trained.
    """
    left = trainings
    while field := [] if race.is_decided else field[:left]:
        if field == [race.favourite]:
            break  # nobody to compare it with
        fresh = next(seeds)
        values = yield [Heat(one.make(fresh), one.params, one) for one in field]
        for one, value in zip(field, values, strict=True):
            one.values[fresh] = value
        left -= len(field)
        race.favourite = field[0]
        field = _remaining(race, field)
        if race.favourite.candidate is not None and race.is_fragile(race.favourite):
            another = safer(race.favourite.candidate)
            if all(one.params != another.params for one in race.entrants):
                race.entrants.append(another)
                field = [race.favourite, another, *field[1:]]
    return trainings - left


def _remaining(race: Race, field: Sequence[Entrant]) -> list[Entrant]:
    """Half of the field, at least two, the favourite among them: where another training may change most."""
    count = max(2, math.ceil(len(field) / 2))
    others = sorted((one for one in field if one is not race.favourite), key=race.promise, reverse=True)
    return [race.favourite, *others[: count - 1]]


def entrant_of(candidate: Candidate, name: str = "candidate") -> Entrant:
    """A schedule of ours."""
    return Entrant(name, candidate.run, candidate.to_dict(), candidate=candidate)


def baseline_entrant(name: str, max_lr: float, length: TrainingLength) -> Entrant:
    """A baseline, at the rate it does best at where ours peaks at ``max_lr``."""
    baseline = BASELINES[name]
    lr = baseline.best_rate(max_lr)
    params = {"policy": baseline.policy, "baseline": name, "max_lr": lr}
    return Entrant(name, lambda seed: baseline.run(lr, length, seed), params, lr=lr)


def summary(one: Entrant, name: str | None = None) -> dict[str, Any]:
    """An entrant as evidence tells it: name, its highest rate, mean, std (0 of one seed) and values over its seeds."""
    std = stdev(one.known) if len(one.known) > 1 else 0.0
    return {
        "name": name or one.name,
        "lr": one.params["max_lr"],
        "mean": one.mean,
        "std": None if one.mean is None else std,
        "values": list(one.values.values()),
    }


def verdict(race: Race, winner: Entrant, baselines: Sequence[Entrant]) -> tuple[str, list[str]]:
    """The winner beside the baselines, in words, and a warning for each that did better.

    Those that did better alone are named where there are any; else those that did worse, and those that did neither.
    """
    if winner.mean is None:
        return "the recommended schedule diverged", ["a training of the recommended schedule diverged"]
    baselines = [one for one in baselines if one.values.keys() & winner.values.keys()]
    if not baselines:
        return NOT_COMPARED, []
    leads = {one: race.lead(winner, one) for one in baselines}
    better = [one for one, lead in leads.items() if lead is not None and lead.counts and lead.difference < 0]
    if better:
        return f"{_listed(better)} did better", [_warning(one, leads[one]) for one in better]
    alike = [one for one, lead in leads.items() if lead is not None and not lead.counts]
    ahead = [_ahead(one, leads[one]) for one in baselines if one not in alike]
    said = [f"CLR ahead {' and '.join(ahead)}"] if ahead else []
    said += [f"no difference to {_listed(alike)}"] if alike else []
    return ", ".join(said), []


def _ahead(one: Entrant, lead: Lead | None) -> str:
    if lead is None:
        return f"as {_plain(one)} diverged"
    return f"by {lead.difference:.3g} +- {lead.error:.2g} of {_plain(one)}"


def _warning(one: Entrant, lead: Lead | None) -> str:
    assert lead is not None
    return f"{did_better(one.name, one.lr or 0.0)}{-lead.difference:.3g} +- {lead.error:.2g}"


def _listed(entrants: Sequence[Entrant]) -> str:
    return " and ".join(map(_plain, entrants))


def _plain(one: Entrant) -> str:
    return "a fixed rate" if one.name == "fixed" else one.name.replace("_", " ")
