"""Tasks of other kinds than the four that the range test was made on: optimizers, losses, networks and lengths.

They were written down before anything was measured on them. Most make their own data, so that each can be repeated
anywhere; the rest use Fashion-MNIST, scikit-learn's digits or the text of Python's own documentation.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from pydoc_data.topics import topics
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clr
from clr.tasks.fashion_mnist import DEBIAN
from clr.tasks.networks import LanguageModel, layers
from clr.tasks.text_lm import next_token_loss
from clr.training.task import Task, optimizer

Pair = tuple[Tensor, Tensor]


def split(inputs: Tensor, target: Tensor, train: int) -> dict[str, Pair]:
    """The first ``train`` examples to train on, the rest to validate."""
    return {"train": (inputs[:train], target[:train]), "val": (inputs[train:], target[train:])}


def random(seed: int) -> torch.Generator:
    """The random numbers that a task's data are made of; always the same."""
    return torch.Generator().manual_seed(seed)


class Factors(nn.Module):
    """(n, 2) numbers of users and items to (n,) ratings: the product of two rows of factors, and two biases."""

    def __init__(self, users: int, items: int, rank: int) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(users, rank + 1), nn.Embedding(items, rank + 1)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, pairs: Tensor) -> Tensor:
        """Ratings, about their mean."""
        user, item = self.users(pairs[:, 0]), self.items(pairs[:, 1])
        product: Tensor = (user[:, 1:] * item[:, 1:]).sum(1) + user[:, 0] + item[:, 0]
        return product


def factors(name: str = "Adagrad") -> Task:
    """Ratings of 400 users for 300 items, of rank 6 with noise, 24,000 of them known."""
    made = random(1)
    users, items = torch.randn(400, 6, generator=made), torch.randn(300, 6, generator=made)
    pairs = torch.stack([torch.randint(size, (28_000,), generator=made) for size in (400, 300)], dim=1)
    ratings = (users[pairs[:, 0]] * items[pairs[:, 1]]).sum(1) / 6**0.5 + 0.3 * torch.randn(28_000, generator=made)
    return Task(
        model=lambda: Factors(400, 300, 8),
        **split(pairs, ratings, 24_000),
        loss=F.mse_loss,
        optimizer=optimizer(name),
        batch_size=128,
    )


@lru_cache
def text(context: int) -> tuple[Pair, Pair, int]:
    """Pieces of the text of Python's documentation, to train on and to validate, and how many characters there are."""
    whole = "\n".join(topics[name] for name in sorted(topics))
    letters = {letter: number for number, letter in enumerate(sorted(set(whole)))}
    tokens = torch.tensor([letters[letter] for letter in whole])
    pieces = tokens[: len(tokens) // (context + 1) * (context + 1)].reshape(-1, context + 1)
    pieces = pieces[torch.randperm(len(pieces), generator=random(2))]
    known = len(pieces) * 9 // 10
    (train, val) = ((part[:, :-1], part[:, 1:]) for part in (pieces[:known], pieces[known : known + 400]))
    return train, val, len(letters)


class Recurrent(nn.Module):
    """An LSTM over characters: (n, length) numbers to (n, length, characters) logits of the one that follows."""

    def __init__(self, letters: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(letters, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.out = nn.Linear(width, letters)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.out(self.lstm(self.token(tokens))[0])
        return logits


def lstm() -> Task:
    """An LSTM on characters under plain SGD, gradients clipped at a norm of 0.25."""
    train, val, letters = text(24)
    return Task(
        model=lambda: Recurrent(letters, 48),
        train=train,
        val=val,
        loss=next_token_loss,
        optimizer=optimizer("SGD", momentum=0.0),
        batch_size=16,
        clip_norm=0.25,
    )


def transformer() -> Task:
    """A small transformer on characters under AdamW."""
    train, val, letters = text(24)
    return Task(
        model=lambda: LanguageModel(letters, 24, 32, 2, 2),
        train=train,
        val=val,
        loss=next_token_loss,
        optimizer=optimizer("AdamW", weight_decay=0.1),
        batch_size=16,
    )


class Residual(nn.Module):
    """Two batch-normalised 3x3 convolutions beside a way around them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.inner = nn.Sequential(
            *(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()),
            *(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        self.around = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Half as many pixels each way where there are more channels."""
        summed: Tensor = self.inner(images) + self.around(images)
        return F.relu(summed)


def residual_network() -> nn.Module:
    """Three residual blocks of 8, 16 and 32 channels."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(Residual(8, 8), Residual(8, 16), Residual(16, 32)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
    )


@lru_cache
def small_images() -> tuple[Pair, Pair]:
    """12,000 images of Fashion-MNIST to train on and 2,000 to validate, of 14 x 14 pixels and standard deviation 1."""
    folder = os.environ.get("FASHION_MNIST", DEBIAN)
    whole = clr.load_task("fashion-mnist", data=folder, train_size=12_000, val_size=2_000)
    parts: list[Pair] = []
    for images, labels in (whole.train, whole.val):  # type: ignore[misc]
        pixels = images.float().reshape(-1, 1, 28, 28)
        pixels = (pixels - pixels.mean()) / pixels.std()
        parts.append((F.avg_pool2d(pixels, 2), labels))
    return parts[0], parts[1]


def resnet() -> Task:
    """A small residual network on small images under SGD with momentum."""
    train, val = small_images()
    return Task(
        model=residual_network,
        train=train,
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        optimizer=optimizer("SGD", weight_decay=5e-4),
        batch_size=32,
    )


def image_mlp(name: str, **args: Any) -> Task:
    """Two hidden layers on small images under any optimizer."""
    train, val = small_images()
    return Task(
        model=lambda: nn.Sequential(nn.Flatten(), layers(196, [64, 64], 10)),
        train=train,
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        optimizer=optimizer(name, **args),
        batch_size=32,
    )


def imbalanced() -> Task:
    """A table of twelve columns in which one row of twenty is of the other class, and some labels are wrong."""
    made = random(3)
    rows = torch.randn(12_000, 12, generator=made)
    hidden = torch.tanh(rows @ torch.randn(12, 6, generator=made)) @ torch.randn(6, generator=made)
    rare = hidden > hidden.quantile(0.95)
    labels = (rare ^ (torch.rand(12_000, generator=made) < 0.02)).float()
    return Task(
        model=lambda: nn.Sequential(layers(12, [32, 32], 1), nn.Flatten(0)),
        **split(rows, labels, 10_000),
        loss=F.binary_cross_entropy_with_logits,
        optimizer=optimizer("Adam"),
        batch_size=64,
    )


def weights_of(
    make: Callable[[], nn.Module], images: Tensor, labels: Tensor, seed: int, lr: float
) -> dict[str, Tensor]:
    """Weights of a network after three epochs of Adam."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make()
        steps = torch.optim.Adam(network.parameters(), lr=lr)
        for _ in range(3):
            for batch in torch.randperm(len(labels)).split(64):
                steps.zero_grad()
                F.cross_entropy(network(images[batch]), labels[batch]).backward()
                steps.step()
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@lru_cache
def pretrained() -> dict[str, Tensor]:
    """Weights of the residual network, trained on the first five classes alone."""
    images, labels = small_images()[0]
    kept = labels < 5
    return weights_of(residual_network, images[kept], labels[kept], seed=4, lr=3e-3)


def tuned_network() -> nn.Module:
    """The pretrained network with a fresh head."""
    network = residual_network()
    network.load_state_dict(pretrained())
    network[-1] = nn.Linear(32, 10)
    return network


def groups_of(network: nn.Module) -> list[dict[str, Any]]:
    """The head at ten times the rate of the rest."""
    assert isinstance(network, nn.Sequential)
    return [{"params": network[:-1].parameters()}, {"params": network[-1].parameters(), "lr_mult": 10.0}]


def fine_tuning(name: str = "SGD") -> Task:
    """The five classes that the network does not know, 1,000 images, the fresh head at ten times the rate."""
    parts = []
    for (images, labels), size in zip(small_images(), (1_000, 1_000), strict=True):
        fresh = torch.nonzero(labels >= 5)[:size, 0]
        parts.append((images[fresh], labels[fresh]))
    return Task(
        model=tuned_network,
        train=parts[0],
        val=parts[1],
        loss=F.cross_entropy,
        metric="accuracy",
        optimizer=optimizer(name),
        groups=groups_of,
        batch_size=32,
    )


class LowRank(nn.Module):
    """A linear layer that stays as it is, and beside it a product of two thin matrices that learns."""

    def __init__(self, known: nn.Linear, rank: int) -> None:
        super().__init__()
        self.known = known.requires_grad_(False)
        self.down = nn.Linear(known.in_features, rank, bias=False)
        self.up = nn.Linear(rank, known.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """At first what the known layer says."""
        summed: Tensor = self.known(inputs) + self.up(self.down(inputs))
        return summed


@lru_cache
def known_layers() -> dict[str, Tensor]:
    """Weights of three layers, trained on the first five classes alone."""
    images, labels = small_images()[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = layers(196, [128, 64], 10)
        kept = torch.nonzero(labels < 5)[:, 0]
        steps = torch.optim.Adam(network.parameters(), lr=2e-3)
        for _ in range(5):
            for batch in kept[torch.randperm(len(kept))].split(64):
                steps.zero_grad()
                F.cross_entropy(network(images[batch].flatten(1)), labels[batch]).backward()
                steps.step()
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def adapted_network() -> nn.Module:
    """Known layers with adapters of rank 4, and a fresh head."""
    network = layers(196, [128, 64], 10)
    network.load_state_dict(known_layers())
    for at, layer in enumerate(network):  # type: ignore[arg-type]
        if isinstance(layer, nn.Linear):
            network[at] = LowRank(layer, 4)  # type: ignore[operator]
    return nn.Sequential(nn.Flatten(), network)


def adapters() -> Task:
    """Adapters of low rank tell the other five classes apart, under AdamW."""
    return Task(
        model=adapted_network,
        train=fine_tuning().train,
        val=fine_tuning().val,
        loss=F.cross_entropy,
        metric="accuracy",
        groups=lambda network: [one for one in network.parameters() if one.requires_grad],
        optimizer=optimizer("AdamW"),
        batch_size=32,
    )


def frozen_head() -> Task:
    """A noisy regression through two layers of ReLUs whose last layer never learns, batch 8."""
    made = random(6)
    rows = torch.randn(4_500, 10, generator=made)
    target = 3 * torch.sin(rows[:, :3].sum(1)) + rows[:, 3] * rows[:, 4] + torch.randn(4_500, generator=made)

    def network() -> nn.Module:
        inner = layers(10, [32, 32], 1)
        inner[-1].requires_grad_(False)  # type: ignore[index]
        return nn.Sequential(inner, nn.Flatten(0))

    return Task(
        model=network,
        **split(rows, target, 4_000),
        loss=F.mse_loss,
        groups=lambda model: [one for one in model.parameters() if one.requires_grad],
        optimizer=optimizer("SGD", momentum=0.0),
        batch_size=8,
    )


def autoencoder() -> Task:
    """Digits through eight numbers and back under plain SGD; a mean over pixels makes rates large."""
    digits = clr.load_task("digits")
    train, val = ((images.flatten(1).float() / images.max(),) * 2 for images, _ in (digits.train, digits.val))  # type: ignore[misc]
    return Task(
        model=lambda: nn.Sequential(layers(64, [32, 8, 32], 64), nn.Sigmoid()),
        train=train,
        val=val,
        loss=F.mse_loss,
        optimizer=optimizer("SGD", momentum=0.0),
        batch_size=32,
    )


def fmnist_2c2d() -> Task:
    """DeepOBS' problem of that name: two convolutions and two dense layers, batch 128, plain SGD.

    Source: Schneider, Balles, Hennig, "DeepOBS", ICLR 2019, and its documentation.
    """
    folder = os.environ.get("FASHION_MNIST", DEBIAN)
    whole = clr.load_task("fashion-mnist", data=folder, train_size=60_000, val_size=10_000)

    def network() -> nn.Module:
        made = nn.Sequential(
            *(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(64 * 7 * 7, 1024), nn.ReLU(), nn.Linear(1024, 10)),
        )
        return truncated_normal(made, 0.05, 0.05)

    def images(part: Any) -> Pair:
        return part[0].float().reshape(-1, 1, 28, 28) / 255, part[1]

    return Task(
        model=network,
        train=images(whole.train),
        val=images(whole.val),
        loss=F.cross_entropy,
        metric="accuracy",
        optimizer=optimizer("SGD", momentum=0.0),
        batch_size=128,
    )


def truncated_normal(network: nn.Module, std: float, bias: float) -> nn.Module:
    """Weights from a normal distribution cut off at two standard deviations, constant biases."""
    for layer in network:  # type: ignore[attr-defined]
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.constant_(layer.bias, bias)  # type: ignore[arg-type]
    return network


def cifar10_3c3d(train: Pair, val: Pair) -> Task:
    """DeepOBS' problem of that name, without its crops: batch 128, plain SGD, weights alone decay by 0.002.

    Args:
        train, val: images (n, 3, 32, 32) and labels.
    """

    def network() -> nn.Module:
        made = nn.Sequential(
            *(nn.Conv2d(3, 64, 5), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)),
            *(nn.Conv2d(64, 96, 3), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)),
            *(nn.Conv2d(96, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)),
            *(nn.Flatten(), nn.Linear(128 * 3 * 3, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)),
        )
        for layer in made:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                (nn.init.xavier_uniform_ if isinstance(layer, nn.Linear) else nn.init.xavier_normal_)(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        return made

    def groups(model: nn.Module) -> list[dict[str, Any]]:
        weights = [one for one in model.parameters() if one.ndim > 1]
        biases = [one for one in model.parameters() if one.ndim == 1]
        return [{"params": weights, "weight_decay": 0.002}, {"params": biases}]

    return Task(
        model=network,
        train=train,
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        optimizer=optimizer("SGD", momentum=0.0),
        groups=groups,
        batch_size=128,
    )


class Gated(nn.Module):
    """A GRU over characters: (n, length) numbers to (n, length, characters) logits of the one that follows."""

    def __init__(self, letters: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(letters, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, letters)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.out(self.gru(self.token(tokens))[0])
        return logits


def gru() -> Task:
    """A GRU on characters under AdamW."""
    train, val, letters = text(24)
    return Task(
        model=lambda: Gated(letters, 48),
        train=train,
        val=val,
        loss=next_token_loss,
        optimizer=optimizer("AdamW"),
        batch_size=16,
    )


def deep_tanh() -> Task:
    """Six narrow layers of tanh on digits under SGD with momentum: hard to leave the start, easy to saturate."""
    digits = clr.load_task("digits")

    def network() -> nn.Module:
        inner = [layer for _ in range(5) for layer in (nn.Linear(32, 32), nn.Tanh())]
        return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), *inner, nn.Linear(32, 10))

    return Task(model=network, train=digits.train, val=digits.val, loss=F.cross_entropy, metric="accuracy")


def outliers() -> Task:
    """A regression with wild outliers under Huber's loss and NAdam."""
    made = random(7)
    rows = torch.randn(9_000, 16, generator=made)
    target = (rows @ torch.randn(16, generator=made)) * torch.sigmoid(rows[:, 0]) + torch.sin(2 * rows[:, 1])
    wild = torch.rand(9_000, generator=made) < 0.05
    target = target + 0.3 * torch.randn(9_000, generator=made) + 30 * wild * torch.randn(9_000, generator=made)
    return Task(
        model=lambda: nn.Sequential(layers(16, [64, 64], 1), nn.Flatten(0)),
        **split(rows, target, 8_000),
        loss=F.huber_loss,
        optimizer=optimizer("NAdam"),
        batch_size=64,
    )


def layer_norm_sgd() -> Task:
    """A network whose every layer is normalised, under plain SGD, batch 256: rates far above one."""
    train, val = small_images()

    def network() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(196, 64, bias=False), nn.LayerNorm(64), nn.ReLU()),
            *(nn.Linear(64, 64, bias=False), nn.LayerNorm(64), nn.ReLU()),
            nn.Linear(64, 10),
        )

    return Task(
        model=network,
        train=train,
        val=val,
        loss=F.cross_entropy,
        metric="accuracy",
        optimizer=optimizer("SGD", momentum=0.0),
        batch_size=256,
    )
