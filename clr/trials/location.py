"""The location: whole trainings around the range test's rate, which say where the best rate lies."""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace

from clr.range_tests.method import METHOD, OCTAVE, rate
from clr.run import Run
from clr.trials.best_rate import SEED_NOISE, BestRate, Trained
from clr.trials.race import ALIKE, BOLDER, SAFER, Entrant, Heat, Race

FIRST = 3
"""Trainings of the first round: the range test's own rate, and one to either side."""

PAIR = OCTAVE / 2
"""How far to either side of where the best rate seems to lie the next two are, at least: half a step of the first."""


SCORES = 8
"""Times that such a training is scored, at least: one that overfits did better before its end."""

TOO_FAR = 3 * SEED_NOISE
"""How far its end must lie below, a share of what a training gains, to say so: more than trainings differ by."""


class Location:
    """A search for the best rate, among schedules that are like the range test's own in all else.

    Args:
        race: of which the range test's own is the first entrant; the others enter it.
        prior: what the range test says of the best rate.
        at: an entrant like the own at another rate; None above the highest that is allowed.
    """

    def __init__(self, race: Race, prior: BestRate, at: Callable[[float], Entrant | None]) -> None:
        self.race, self.prior, self.at = race, prior, at

    @property
    def tried(self) -> list[tuple[float, Entrant]]:
        """Those that were trained, with the logarithms of their rates."""
        own = self.race.own.candidate
        assert own is not None
        ours = [(one.candidate, one) for one in self.race.entrants if one.candidate is not None and one.values]
        return [(math.log(made.max_lr), one) for made, one in ours if made.has_shape_of(own)]

    @property
    def best_rate(self) -> BestRate:
        """What is believed of the best rate by now."""
        gain = self.race.gain
        if self.race.floor is None:  # what the values differ by is no measure of what a training gains
            gain = max([gain, *(abs(value) for _, one in self.tried for value in one.known)])
        trained = [
            Trained(x, seed, None if value is None else self.race.sign * value / (gain or 1.0))
            for x, one in self.tried
            for seed, value in one.values.items()
        ]
        return self._prior.after(trained)

    @property
    def _prior(self) -> BestRate:
        """What the range test says; or the rate that goes as far as the best score within any, where all overfitted."""
        sign, gain, around = self.race.sign, self.race.gain, self.race.own.values
        ended = [
            (x, one.peaks.get(seed), value)
            for x, one in self.tried
            for seed, value in one.values.items()
            if seed in around  # not those of what they led to
        ]
        peaks = [
            (sign * peak.value, x + math.log(peak.share))
            for x, peak, value in ended
            if peak is not None and value is not None and sign * (peak.value - value) > TOO_FAR * gain
        ]
        if not peaks or len(peaks) < len(ended):
            return self.prior
        _, x = max(peaks)
        return replace(self.prior, x=x, deviation=METHOD.length.error)

    def said(self, best: BestRate) -> str:
        """What they say, in words; once any was trained."""
        rates = [one.params["max_lr"] for _, one in self.tried]
        count = sum(len(one.values) for _, one in self.tried)
        own = self.race.own.params["max_lr"]
        where = f"{count} trainings at max_lr {min(rates):.3g} to {max(rates):.3g} put the best at {best.max_lr:.3g}"
        fitted = "" if self._prior is self.prior else ", and each scored far better before its end: it fits too much"
        return f"{where}, the range test at {own:.3g}{fitted}"

    def rounds(self, most: int, seeds: Iterator[int]) -> Generator[list[Heat], list[float | None], int]:
        """Rounds, each on a fresh seed; whoever seems best then is the favourite.

        After the first there are others as far as half of the trainings go, until no more than ``ALIKE`` is expected to
        be lost.

        Args:
            most: trainings that there may be, at least two.
            seeds: fresh ones.

        Returns:
            How many were trained.
        """
        spent = 0
        while field := self._next(most, spent):
            fresh = next(seeds)
            values = yield [Heat(_scored(one.make(fresh)), one.params, one) for one in field]
            for one, value in zip(field, values, strict=True):
                one.values[fresh] = value
            spent += len(field)
            best = self.best_rate
            self.race.assumed = best.noise, best.weight
            self.race.favourite = self._likeliest([one for _, one in self.tried if one.mean is not None])
        return spent

    def _next(self, most: int, spent: int) -> list[Entrant]:
        own = self.race.own
        if not own.values:
            lr = own.params["max_lr"]
            return [own, *self._enter(lr * SAFER, lr * BOLDER)][: min(FIRST, most)]
        best = self.best_rate
        away = max(PAIR, best.deviation)
        if spent + 2 > most / 2 or best.lost < ALIKE:
            return []
        return self._enter(rate(best.x - away), rate(best.x + away))

    def candidate(self) -> Entrant:
        """Whoever is to go on: at the best rate, or at the own where that is expected to lose hardly more."""
        tried = [one for _, one in self.tried if one.mean is not None]
        if not tried:  # all diverged
            return self._enter(rate(min(x for x, _ in self.tried)) * SAFER)[0]
        return self._likeliest([*tried, *self._enter(self.best_rate.max_lr)])

    def _likeliest(self, among: Sequence[Entrant]) -> Entrant:
        best_rate, favourite = self.best_rate, self.race.favourite
        lost = [best_rate.lost_at(one.params["max_lr"]) for one in among]
        if favourite in among and lost[among.index(favourite)] - min(lost) < ALIKE:
            return favourite
        return among[lost.index(min(lost))] if among else favourite

    def _enter(self, *rates: float) -> list[Entrant]:
        """Entrants at these rates, as far as they are allowed; each is in the race once."""
        known = {one.candidate: one for one in self.race.entrants}
        entered = [known.get(one.candidate, one) for lr in rates if (one := self.at(lr)) is not None]
        self.race.entrants += [one for one in entered if one not in self.race.entrants]
        return entered


def _scored(run: Run) -> Run:
    return replace(run, evaluate_every=min(run.evaluate_every, math.ceil(run.steps / SCORES)))
