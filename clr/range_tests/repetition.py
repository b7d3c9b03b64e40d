"""One repetition of the range test: bracket, ramps, and proofs of two lengths at the rates they point to.

A ramp alone cannot tell the best rate of a training: the network has learnt at the lower rates before it meets the
higher ones. So ramps only say where to begin. Short whole cycles, the proofs, are moved until the best has a worse one
on either side; two longer ones on other batches bear it out.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from clr.range_tests.evidence import Evidence, Finding
from clr.range_tests.method import METHOD, rate
from clr.range_tests.proof import Untouched
from clr.range_tests.proofs import Proofs
from clr.range_tests.ramps import Ends, bracket, ramps
from clr.run import ConstantOutput, Direction, Plan, fresh_seeds


def repetition(
    budget: int,
    training: int,
    seed: int,
    lowest: float | None = None,
    highest: float | None = None,
    direction: Direction = "maximize",
    tell: Callable[[Finding], None] = lambda finding: None,
    optimizer: Mapping[str, Any] | None = None,
    constant: ConstantOutput | None = None,
    cycles: int = 1,
) -> Plan[Finding]:
    """Bracket, two ramps, three to five proofs and two longer ones, in at most ``budget`` steps.

    Args:
        budget: steps of all runs together, >= ``METHOD.fewest_steps``.
        training: steps of one cycle of the training to be recommended for.
        seed: of this repetition.
        lowest, highest: rates that the bracket spans; None: it goes on until the training breaks. No run goes beyond a
            highest rate of the caller's own, whatever the bracket says.
        direction: of the metric, where curves have one.
        tell: called with what is known so far, each time that is more.
        optimizer: what trains, where known; see ``pace``.
        constant: what the best constant output does, where known.
        cycles: that the training has.
    """
    ends, of = Ends.of(lowest, highest), METHOD
    bracket_seed, first_seed, second_seed, *ramp_seeds = fresh_seeds(seed, "repetition", 5)
    around = yield from bracket(max(of.bracket.steps, int(of.bracket.share * budget)), bracket_seed, ends)
    if around.start is None:
        doubt = "the loss is not finite, even at the lowest rate"
        return Finding(None, None, None, None, "inconclusive", [doubt], None, around.runs)
    if around.unused:
        doubt = f"all rates train alike, from {rate(around.bottom):.3g} on: is the learning rate used?"
        return Finding(None, None, None, None, "inconclusive", [doubt], None, around.runs)
    ends = replace(ends, highest=min(ends.highest, around.saturation))
    seen = yield from ramps(around, max(of.ramps.steps, int(of.ramps.share * budget)), ramp_seeds, ends)
    evidence = Evidence(around, seen, ends, training, cycles, optimizer)
    untouched = Untouched.of(around, seen, direction, constant)
    tell(evidence.finding())

    left = budget - evidence.taken
    # where ramps learnt nothing short cycles would not either, and only take what longer ones need
    wanted = left if evidence.blind else max(of.proofs.steps, int(of.proofs.share * budget))
    steps = min(wanted, left // 3, max(training, of.proofs.steps))
    first = evidence.first = Proofs(max(2, steps), first_seed, untouched, of.proofs.scores if evidence.blind else 1)
    centre = min(evidence.guess, ends.highest - 1.5 * of.proofs.step)
    yield from first.prove([centre - of.proofs.step / 2, centre + of.proofs.step / 2])
    longer = not first.fell and (budget - evidence.taken) // 3 >= first.steps
    if not longer:
        yield from first.bracket_best(min(of.proofs.most, left // first.steps), ends.highest, evidence.ended)
    tell(evidence.finding())

    count = 3 if longer else 2  # what short proofs do not show, longer ones must find by themselves
    steps = min((budget - evidence.taken) // count, training)
    if steps >= first.steps:
        second = Proofs(steps, first_seed if evidence.on_plateau else second_seed, untouched, of.proofs.scores)
        shift = of.length.exponent * math.log(second.steps / first.steps) + evidence.paced(first.steps, second.steps)
        centre = first.vertex[0] - shift if first.fell else first.harmless
        centre = min(centre, ends.highest - of.proofs.step / 2)
        yield from second.prove([centre - of.proofs.step / 2, centre + of.proofs.step / 2])
        yield from second.bracket_best(count, ends.highest, evidence.ended)
        evidence.second = second
    return evidence.finding()
