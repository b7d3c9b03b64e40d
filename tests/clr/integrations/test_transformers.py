"""The real transformers on a tiny GPT-2, made from its configuration, and the bytes of the README."""

from pathlib import Path
from typing import Any

import pytest
import torch

from clr.errors import InvalidArgument
from clr.schedules.policies import schedule
from clr.tuning.recommendation import Recommendation

transformers = pytest.importorskip("transformers")

from clr.integrations.transformers import install, lr_bounds  # noqa: E402

TEXT = Path(__file__).parents[3].joinpath("README.md").read_bytes()[: 120 * 32]
EXAMPLES = [{"input_ids": piece, "labels": piece} for piece in torch.tensor(list(TEXT)).split(32)]


def make(folder: Path, **changes: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"n_positions": 32, "n_embd": 32, "n_layer": 1, "n_head": 2}
    config = transformers.GPT2Config(vocab_size=256, bos_token_id=0, eos_token_id=0, **sizes)
    quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    options = {"num_train_epochs": 20, "per_device_train_batch_size": 16, "use_cpu": True}
    args = transformers.TrainingArguments(str(folder), dataloader_pin_memory=False, **quiet | options | changes)
    model = transformers.GPT2LMHeadModel(config)
    return transformers.Trainer(model, args, train_dataset=EXAMPLES[:100], eval_dataset=EXAMPLES[100:])


def state(trainer: Any) -> list[Any]:
    tensors = [*trainer.model.state_dict().values(), torch.get_rng_state()]
    held = [trainer.optimizer, trainer.lr_scheduler, trainer.model.training, len(trainer.accelerator._dataloaders)]
    gradients = [parameter.grad for parameter in trainer.model.parameters()]
    return [*held, gradients, repr(trainer.state), *(tensor.numpy().tobytes() for tensor in tensors)]


class Rates(transformers.TrainerCallback):
    """The rate of every optimizer step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **held: Any) -> None:
        self.seen.append(held["optimizer"].param_groups[0]["lr"])


def test_a_trainer_is_tested_left_as_it_was_and_then_trains_under_the_recommended_schedule(tmp_path: Path) -> None:
    trainer, rates = make(tmp_path), Rates()
    before = state(trainer)
    found = lr_bounds(trainer)
    assert state(trainer) == before
    assert found.max_lr is not None
    assert (found.iterations_per_epoch, found.stepsize) == (7, 70)
    untrained = trainer.evaluate()["eval_loss"]
    install(trainer, found)
    trainer.add_callback(rates)
    trainer.train()
    rate = schedule("triangular", base_lr=found.base_lr, max_lr=found.max_lr, stepsize=42, stepsize_down=98)
    assert rates.seen == pytest.approx([rate(step) for step in range(140)])
    assert trainer.evaluate()["eval_loss"] < 0.6 * untrained


def test_accumulation_clipping_and_the_number_of_steps_are_the_trainers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clr.integrations import transformers as integration

    tasks = []
    real = integration.recommended
    monkeypatch.setattr(integration, "recommended", lambda *args, **own: tasks.append(own) or real(*args, **own))
    found = lr_bounds(make(tmp_path, gradient_accumulation_steps=3, max_grad_norm=0.7, max_steps=90, bf16=True))
    (own,) = tasks
    assert (own["accumulate"], own["clip_norm"], own["precision"]) == (3, 0.7, "bf16")
    assert found.iterations_per_epoch == 3
    assert found.cost is not None
    assert found.cost.steps <= 90


def test_an_inconclusive_recommendation_leaves_the_trainer_its_own_schedule(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    fields = ("base_lr", "max_lr", "ratio", "stepsize", "stepsize_multiplier", "gamma", "interval")
    found = Recommendation(
        source="range_test",
        policy="triangular",
        iterations_per_epoch=7,
        confidence="inconclusive",
        reasons=["too short"],
        **dict.fromkeys(fields),  # type: ignore[arg-type]
    )
    with pytest.raises(InvalidArgument, match=r"must have bounds, .* \(too short"):
        install(trainer, found)
    assert (trainer.optimizer, trainer.lr_scheduler) == (None, None)


@pytest.mark.parametrize("epochs", [0, -1.0])
def test_a_length_that_is_none_is_refused(epochs: float, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="epochs: must be above 0 and finite"):
        lr_bounds(make(tmp_path), epochs=epochs)
