"""A language model on this project's own documentation."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clr.errors import DataMissing, InvalidArgument
from clr.run import Run
from clr.tasks import load_task
from clr.tasks.networks import LanguageModel
from clr.training.loop import curve_of
from clr.training.task import Task, optimizer

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "docs.txt"
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    file.write_bytes(b"".join(page.read_bytes() for page in pages))
    return file


def make(text: Path, **args: Any) -> Task:
    return replace(load_task("text-lm", data=str(text), **args), device="cpu", optimizer=optimizer("AdamW"))


def test_a_text_is_learnt_better_than_by_counting_its_bytes(text: Path) -> None:
    task = make(text, context=16, width=64, depth=1, val_share=0.05)
    assert task.score[:2] == ("loss", "minimize")
    counts = torch.bincount(task.train[1].flatten(), minlength=256) + 0.5
    by_counting = -(counts / counts.sum()).log()[task.val[1].long()].mean().item()
    run = Run(policy="triangular", base_lr=0.001, max_lr=0.01, step_size_up=125, steps=250, seed=0, evaluate_every=250)
    curve = curve_of(task, run)
    assert curve.loss[0] == pytest.approx(math.log(256), rel=0.05)
    assert curve.value < 0.93 * by_counting


def test_pieces_hold_the_text_and_the_tokens_that_follow(text: Path) -> None:
    raw = text.read_bytes()
    task = make(text, context=16)
    inputs, follow = (torch.cat([task.train[i], task.val[i]]) for i in (0, 1))
    assert bytes(inputs.flatten().tolist()) == raw[: inputs.numel()]
    assert bytes(follow.flatten().tolist()) == raw[1 : follow.numel() + 1]
    assert len(task.val[0]) == pytest.approx(0.1 * len(inputs), abs=1)


def test_characters_are_as_many_as_the_text_has_different_ones(text: Path) -> None:
    task = make(text, tokens="characters")
    assert task.model().token.num_embeddings == len(set(text.read_text()))


def test_no_position_sees_what_follows_it() -> None:
    torch.manual_seed(0)
    model = LanguageModel(11, context=8, width=8, depth=2, heads=2).eval()
    tokens = torch.randint(11, (1, 8))
    changed = tokens.clone()
    changed[0, 5] = (tokens[0, 5] + 1) % 11
    with torch.no_grad():
        before, after = model(tokens)[0], model(changed)[0]
    assert torch.equal(before[:5], after[:5])
    assert not torch.allclose(before[5:], after[5:])
    assert model(tokens[:, :3]).shape == (1, 3, 11)


@pytest.mark.parametrize(
    ("content", "args", "says"),
    [
        (b"x" * 1000, {"width": 30, "heads": 4}, r"args\.width: must be a multiple of args\.heads = 4, but got 30"),
        (b"short", {}, r"args\.data: must be longer than two pieces of args\.context = 64 tokens.*and has 5"),
        (b"", {}, r"args\.data: must be longer .*and has 0"),
        (b"\xff" * 1000, {"tokens": "characters"}, r"args\.tokens: must be bytes where .* is not in UTF-8"),
        (b"x" * 1000, {"tokens": "words"}, r"args\.tokens: .*'bytes' or 'characters', but got 'words'"),
    ],
)
def test_a_broken_rule_is_named(content: bytes, args: dict[str, Any], says: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(InvalidArgument, match=says):
        make(tmp_path / "text", **args)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"args\.data: .*nowhere: No such file"):
        make(tmp_path / "nowhere")
