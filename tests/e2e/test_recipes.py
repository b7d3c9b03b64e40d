"""Each block of Python in the recipes, as it is printed, on small models and data of each kind."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import clr
from clr.range_tests.plan import RangeTest
from clr.tuning.recommendation import Recommendation

PAGE = Path(__file__).parents[2] / "docs/recipes.md"
SECTIONS = {
    title: re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    for title, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
}


class Language(nn.Module):
    def __init__(self, *, own_loss: bool) -> None:
        super().__init__()
        self.embed, self.out, self.own_loss = nn.Embedding(7, 8), nn.Linear(8, 7), own_loss

    def forward(self, words: Tensor, following: Tensor | None = None) -> Any:
        logits = self.out(self.embed(words))
        if not self.own_loss:
            return logits
        return logits, None if following is None else F.cross_entropy(logits.mT, following)


class Twin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Linear(8, 4)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return -(self.side(one) - self.side(other)).pow(2).sum(1)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters())


def loader(*tensors: Tensor) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*tensors), batch_size=20, shuffle=True)


def names() -> dict[str, Any]:
    """What the recipes take for granted."""
    torch.manual_seed(0)
    x = torch.randn(400, 8)
    y = x[:, :3].argmax(1)
    words = torch.randint(0, 7, (400, 6))
    image = torch.randn(400, 3, 6, 6)
    mask = (image.sum(1) > 0).long()
    networks = [nn.Linear(8, 8), nn.Linear(8, 8)]
    return {
        **{"clr": clr, "torch": torch, "F": F, "nn": nn, "adam": adam, "x": x, "y": y},
        **{"gpt": Language(own_loss=True), "rnn": Language(own_loss=False), "tokens": loader(words, (words + 1) % 7)},
        **{
            "auto": nn.Linear(8, 8),
            "pictures": loader(x),
            "twin": Twin(),
            "pairs": loader(x, x.flip(0), y.eq(0).float()),
        },
        "segment": nn.Conv2d(3, 2, 3, padding=1),
        "masks": [{"image": image[at : at + 20], "mask": mask[at : at + 20]} for at in range(0, 400, 20)],
        **{"net": nn.Linear(8, 3), "loader": loader(x, y), "body": nn.Linear(8, 8), "head": nn.Linear(8, 3)},
        **{"for_generator": adam(networks[0]), "for_discriminator": adam(networks[1])},
    }


@pytest.mark.parametrize("title", [title for title, blocks in SECTIONS.items() if blocks])
def test_a_recipe_runs_as_it_is_printed(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[RangeTest | Recommendation] = []

    def kept(make: Any) -> Any:
        def made(*given: Any, **more: Any) -> Any:
            found.append(make(*given, progress=False, **more))
            return found[-1]

        return made

    for name in ("range_test", "recommend"):
        monkeypatch.setattr(clr, name, kept(getattr(clr, name)))
    scope = names()
    for block in SECTIONS[title]:
        exec(block, scope)
    for one in found:
        bounds = one.bounds if isinstance(one, RangeTest) else one
        assert bounds.max_lr is not None, (title, bounds.reasons)
        assert bounds.max_lr > 0


def test_the_page_has_what_people_look_for() -> None:
    assert [*SECTIONS] == [
        "Batches of another structure",
        "My optimizer is not SGD",
        "Fine-tuning",
        "Several optimizers",
        "Small budgets for long trainings",
    ]
