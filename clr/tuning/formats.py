"""A recommendation as the lines or the table that one framework takes. Text alone: nothing of theirs is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

from clr.schedules.policies import schedule

if TYPE_CHECKING:
    from clr.tuning.recommendation import Recommendation

Format = Literal["json", "python", "yaml", "optax", "keras", "deepspeed", "transformers", "table"]
FORMATS: tuple[Format, ...] = get_args(Format)

TABLE_ROWS = 200
"""Rows of a table, about, beside those at which the schedule turns."""

RATES = {
    "triangular": "base_lr + (max_lr - base_lr) * x",
    "triangular2": "base_lr + (max_lr - base_lr) * x / 2.0**cycle",
    "exp_range": "(base_lr + (max_lr - base_lr) * x) * gamma**step",
    "exp_range_amplitude": "base_lr + (max_lr - base_lr) * x * gamma**step",
    "welch": "base_lr + (max_lr - base_lr) * x * (2 - x)",
    "hann": "base_lr + (max_lr - base_lr) * {maths}.sin({maths}.pi / 2 * x) ** 2",
}
"""The policies of ``clr.schedules.policies`` as expressions, x rising from 0 to 1 and falling back within a cycle."""

OPTAX = """\
import jax.numpy as jnp
import optax

{told}


def schedule(step):
    cycle, position = jnp.divmod(step, {cycle})
    x = jnp.where(position <= {up}, position / {up}, ({cycle} - position) / {down})
    {constants}
    return {rate}


optimizer = optax.sgd(schedule, momentum=0.9)  # or your own: the schedule takes the place of its learning_rate
"""

KERAS = """\
import math

import keras

{told}


class CyclicLR(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        step = int(self.model.optimizer.iterations)
        cycle, position = divmod(step, {cycle})
        x = position / {up} if position <= {up} else ({cycle} - position) / {down}
        {constants}
        self.model.optimizer.learning_rate = {rate}


# model.fit(..., callbacks=[CyclicLR()])
"""

TRANSFORMERS = """\
import {module}
from transformers import Trainer

{told}


class CyclicTrainer(Trainer):
    # in place of the learning_rate and lr_scheduler_type of its TrainingArguments
    def create_scheduler(self, num_training_steps, optimizer=None):
        self.lr_scheduler = {function}(
            optimizer or self.optimizer,
{arguments}
        )
        return self.lr_scheduler


# trainer = CyclicTrainer(model=..., args=..., train_dataset=...)
"""

DEEPSPEED = """\
import {module}

{told}


def cyclic(optimizer):
    return {function}(
        optimizer,
{arguments}
    )


# engine, optimizer, _, scheduler = deepspeed.initialize(model=..., config=..., lr_scheduler=cyclic)
"""

ONE_CYCLE = """\
# For a training of one cycle, {cycle} steps, its configuration's own OneCycle does the same; it does not repeat:
# "scheduler": {{
#     "type": "OneCycle",
#     "params": {{
#         "cycle_min_lr": {base_lr!r}, "cycle_max_lr": {max_lr!r},
#         "cycle_first_step_size": {up}, "cycle_second_step_size": {down},
#         "decay_step_size": 0, "decay_lr_rate": 0.0, "cycle_momentum": false
#     }}
# }}
"""


def to_optax(found: Recommendation) -> str:
    """Lines of an optax schedule: a function from the step, an integer or an array of one, to the rate."""
    return _lines(found, OPTAX, "jnp")


def to_keras(found: Recommendation) -> str:
    """Lines of a Keras callback, which sets the rate before each batch; it counts the optimizer's updates."""
    return _lines(found, KERAS, "math")


def to_transformers(found: Recommendation) -> str:
    """Lines of a Hugging Face Trainer that makes the recommended scheduler for its own optimizer."""
    return _lines(found, TRANSFORMERS, indent=12)


def to_deepspeed(found: Recommendation) -> str:
    """Lines of the scheduler that ``deepspeed.initialize`` takes, and where that will do, of its configuration."""
    one_rate = "lr_mult" not in (found.optimizer or {})  # its configuration has no place for more
    text = DEEPSPEED + (ONE_CYCLE if found.policy == "triangular" and one_rate else "")
    return _lines(found, text, indent=8)


def to_table(found: Recommendation) -> str:
    """Step and rate over one cycle, between tabs, below comments: linear in between, where the policy is."""
    up, down = found.step_size_up, found.step_size_down
    if up is None or down is None:
        return _told(found)
    arguments = found.arguments
    rate = schedule(arguments.pop("policy"), **arguments)
    steps = sorted({*range(0, up + down, -(-(up + down) // TABLE_ROWS)), up, up + down})
    return f"{_told(found)}step\tlr\n" + "".join(f"{step}\t{rate(step):.9g}\n" for step in steps)


WRITERS: dict[Format, Callable[[Recommendation], str]] = {
    "python": lambda found: found.to_python(),
    "yaml": lambda found: found.to_yaml(),
    "optax": to_optax,
    "keras": to_keras,
    "deepspeed": to_deepspeed,
    "transformers": to_transformers,
    "table": to_table,
}
"""All formats but JSON, which is the document itself."""


def _lines(found: Recommendation, text: str, maths: str = "", indent: int = 0) -> str:
    up, down = found.step_size_up, found.step_size_down
    if up is None or down is None:
        return _told(found)
    names = ("base_lr", "max_lr", *(["gamma"] if found.gamma else []))
    constants = f"{', '.join(names)} = {', '.join(repr(getattr(found, name)) for name in names)}"
    module, function, arguments = _torch(found)
    return text.format(
        told=_told(found).rstrip(),
        up=up,
        down=down,
        cycle=up + down,
        base_lr=found.base_lr,
        max_lr=found.max_lr,
        constants=constants,
        rate=RATES[found.policy].format(maths=maths),
        module=module,
        function=function,
        arguments="\n".join(f"{' ' * indent}{name}={value!r}," for name, value in arguments.items()),
    )


def _told(found: Recommendation) -> str:
    """What was found, as comments."""
    return "".join(f"# {line}\n" for line in _sentences(found))


def _sentences(found: Recommendation) -> Iterator[str]:
    up, down = found.step_size_up, found.step_size_down
    if up is None or down is None:
        yield "clr: inconclusive, no bounds"
        yield from found.reasons
        return
    yield f"clr: {found.policy} from {found.base_lr:.6g} to {found.max_lr:.6g} ({found.confidence} confidence)"
    yield f"{up} steps up and {down} down: train for whole cycles of {up + down} steps"
    shares = (found.optimizer or {}).get("lr_mult")
    if shares is not None:
        yield f"of the optimizer's parameter groups: {', '.join(f'{share:g}' for share in shares)} times these rates"
    yield from found.warnings


def _torch(found: Recommendation) -> tuple[str, str, dict[str, Any]]:
    """Module, function and arguments of the scheduler in torch: torch's own, where it has the policy."""
    if found.torch is not None:
        return "torch", "torch.optim.lr_scheduler.CyclicLR", found.torch
    return "clr", "clr.scheduler", found.arguments
