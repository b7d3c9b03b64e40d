"""The real transformers on a tiny GPT-2, made from its configuration, and the bytes of a text that never changes."""

import gc
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clr.errors import InvalidArgument
from clr.schedules.policies import schedule
from clr.tuning.recommendation import Recommendation

transformers = pytest.importorskip("transformers")

from clr.integrations.transformers import install, lr_bounds  # noqa: E402

TEXT = Path(__file__).parents[3].joinpath("LICENSE").read_bytes()[: 120 * 32]
EXAMPLES = [{"input_ids": piece, "labels": piece} for piece in torch.tensor(list(TEXT)).split(32)]


@pytest.fixture(scope="module", autouse=True)
def little_to_look_through() -> None:
    """A Trainer looks for garbage at each training's end, which takes a second amid what thousands of tests left."""
    gc.collect()
    gc.freeze()


def make(folder: Path, kind: Any = transformers.Trainer, train_dataset: Any = None, **changes: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"n_positions": 32, "n_embd": 32, "n_layer": 1, "n_head": 2}
    config = transformers.GPT2Config(vocab_size=256, bos_token_id=0, eos_token_id=0, **sizes)
    quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    options = {"num_train_epochs": 20, "per_device_train_batch_size": 16, "use_cpu": True}
    args = transformers.TrainingArguments(str(folder), dataloader_pin_memory=False, **quiet | options | changes)
    model = transformers.GPT2LMHeadModel(config)
    return kind(model, args, train_dataset=train_dataset or EXAMPLES[:100], eval_dataset=EXAMPLES[100:])


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


def test_a_trainer_is_tested_left_as_it_was_and_then_trains_under_the_recommended_schedule(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
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
    assert "middle of a cycle" not in caplog.text
    trainer.args.max_steps = 100
    trainer.train()
    assert "takes 100 steps, and ends in the middle of a cycle of 140: train for 140" in caplog.text


def test_accumulation_and_the_number_of_steps_are_the_trainers(tmp_path: Path) -> None:
    trainer, rates = make(tmp_path, gradient_accumulation_steps=3, max_steps=90, bf16=True), Rates()
    before = state(trainer)
    found = lr_bounds(trainer, seeds=1)
    assert state(trainer) == before
    assert found.iterations_per_epoch == 3
    assert found.cost is not None
    assert found.cost.steps <= 90
    if found.max_lr is not None:
        install(trainer, found)
        trainer.add_callback(rates)
        trainer.train()
        assert len(rates.seen) == 90


class Stream(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(EXAMPLES)


def test_a_stream_is_trained_on_for_max_steps(tmp_path: Path) -> None:
    trainer = make(tmp_path, train_dataset=Stream(), max_steps=120)
    before = state(trainer)
    found = lr_bounds(trainer, seeds=1)
    assert state(trainer) == before
    assert (found.iterations_per_epoch, found.stepsize) == (120, 60)


def test_a_stream_without_max_steps_is_refused(tmp_path: Path) -> None:
    trainer = make(tmp_path, max_steps=120)
    trainer.train_dataset = Stream()
    trainer.args.max_steps = -1
    with pytest.raises(InvalidArgument, match=r"max_steps: must be set where the training data have no length, .* -1"):
        lr_bounds(trainer)


def test_the_trainers_own_loss_and_optimizer_are_the_tests_and_its_callbacks_are_not(tmp_path: Path) -> None:
    class Own(transformers.Trainer):
        calls = 0

        def compute_loss(self, model: Any, inputs: Any, **more: Any) -> Any:
            Own.calls += 1
            return super().compute_loss(model, inputs, **more)

    class Forbidden(transformers.TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            raise AssertionError("a callback of the user's")

    trainer = make(tmp_path, kind=Own)
    trainer.optimizer = torch.optim.SGD(
        [{"params": [one], "lr": 0.1 if one.ndim > 1 else 0.01} for one in trainer.model.parameters()], momentum=0.9
    )
    groups = [dict(group) for group in trainer.optimizer.param_groups]
    trainer.add_callback(Forbidden())
    before = state(trainer)
    assert lr_bounds(trainer, seeds=1).cost is not None
    assert Own.calls > 100
    assert state(trainer) == before
    assert [dict(group) for group in trainer.optimizer.param_groups] == groups
    assert len(trainer.optimizer.state) == 0


def test_a_model_init_makes_the_model_of_every_run(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    made = []

    def fresh() -> Any:
        made.append(transformers.GPT2LMHeadModel(trainer.model.config))
        return made[-1]

    trainer.model_init = fresh
    before = state(trainer)
    lr_bounds(trainer, seeds=1)
    assert 8 <= len(made) <= 11, "one step, a bracket, two ramps, two to five short proofs and two longer ones"
    assert state(trainer) == before


def test_a_low_confidence_is_said_when_it_is_installed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from clr.integrations.recommending import conclusive

    found = lr_bounds(make(tmp_path), seeds=1)
    assert conclusive(replace(found, confidence="high", warnings=[])) is not None
    assert "confidence" not in caplog.text
    install(make(tmp_path), replace(found, confidence="low", reasons=["they contradict each other"]))
    assert "low confidence: they contradict each other" in caplog.text


TWO_PROCESSES = """
import sys, json, torch, pathlib
sys.path.insert(0, sys.argv[2])
from tests.clr.integrations.test_transformers import make, Rates
from clr.integrations.transformers import install, lr_bounds
trainer, rates = make(pathlib.Path(sys.argv[1]), ddp_backend="gloo"), Rates()
found = lr_bounds(trainer, seeds=1)
install(trainer, found)
trainer.add_callback(rates)
trainer.train()
document = {"max_lr": found.max_lr, "stepsize": found.stepsize, "up": found.step_size_up, "rates": rates.seen}
pathlib.Path(sys.argv[1], f"{trainer.args.process_index}.json").write_text(json.dumps(document))
"""


@pytest.mark.long
@pytest.mark.timeout(300)
def test_two_processes_find_the_same_and_step_the_schedule_once_an_update(tmp_path: Path) -> None:
    tmp_path.joinpath("two.py").write_text(TWO_PROCESSES)
    root = str(Path(__file__).parents[3])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(tmp_path / "two.py"), str(tmp_path), root]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    subprocess.run(command, check=True, env=environment, timeout=280, capture_output=True)
    first, second = (json.loads(tmp_path.joinpath(f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["stepsize"] == 40, "four batches an epoch in each process"
    assert len(first["rates"]) == 80
    assert first["up"] == 24, "a single cycle rises for 30 % of its steps"
    assert first["rates"][first["up"]] == pytest.approx(first["max_lr"])


def test_what_cannot_be_trained_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"trainer: must be a transformers\.Trainer"):
        lr_bounds(torch.nn.Linear(2, 2))
    without = make(tmp_path)
    without.train_dataset = None
    with pytest.raises(InvalidArgument, match=r"trainer: must have a train_dataset"):
        lr_bounds(without)
    frozen = make(tmp_path)
    frozen.model.requires_grad_(False)
    with pytest.raises(InvalidArgument, match=r"trainer: must have a model with a parameter that requires a gradient"):
        lr_bounds(frozen)


def test_an_inconclusive_recommendation_leaves_the_trainer_its_own_schedule(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    fields = (
        *("base_lr", "max_lr", "ratio", "stepsize", "step_size_up", "step_size_down"),
        *("stepsize_multiplier", "gamma", "interval"),
    )
    found = Recommendation(
        source="range_test",
        policy="triangular",
        iterations_per_epoch=7,
        confidence="inconclusive",
        reasons=["too short"],
        **dict.fromkeys(fields),  # type: ignore[arg-type]
    )
    with pytest.raises(InvalidArgument, match="must have bounds, but is inconclusive: too short"):
        install(trainer, found)
    assert (trainer.optimizer, trainer.lr_scheduler) == (None, None)


@pytest.mark.parametrize("epochs", [0, -1.0])
def test_a_length_that_is_none_is_refused(epochs: float, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="epochs: must be above 0 and finite"):
        lr_bounds(make(tmp_path), epochs=epochs)
