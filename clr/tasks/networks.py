"""The networks of the built-in tasks, among them the two CIFAR-10 networks that Caffe is distributed with.

All return one row of logits per image, float32, shape (batch, classes).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Groups = list[dict[str, Any]]

CAFFE_WEIGHT_DECAY = 0.004


def mlp(inputs: int, hidden: int, classes: int = 10) -> nn.Module:
    """One hidden layer of ``hidden`` ReLUs over ``inputs`` pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def layers(inputs: int, hidden: Sequence[int], outputs: int, dropout: float = 0.0) -> nn.Module:
    """Hidden layers of ``hidden`` ReLUs each, one after the other, over (n, inputs); (n, outputs) comes out."""
    sizes = [inputs, *hidden]
    blocks = [(nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)) for a, b in pairwise(sizes)]
    return nn.Sequential(*(layer for block in blocks for layer in block), nn.Linear(sizes[-1], outputs))


class Normalised(nn.Module):
    """Bytes to float32, each channel to mean 0 and standard deviation 1 of the training images.

    Done per batch, so that a data set held in memory takes a quarter of it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width), uint8 to float32."""
        return (images.to(torch.float32, memory_format=torch.channels_last) - self.mean) / self.std


def conv_net(classes: int, width: int = 16) -> nn.Module:
    """Three 3x3 convolutions, each batch-normalised and max-pooled, then averaged over the image, of any size >= 8."""
    blocks = [
        (nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))
        for a, b in pairwise([3, width, 2 * width, 4 * width])
    ]
    return _channels_last(
        *(layer for block in blocks for layer in block),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, classes)),
    )


class LanguageModel(nn.Module):
    """A causal transformer: (n, length) token numbers to (n, length, vocabulary) logits of the token that follows.

    Args:
        vocabulary: number of different tokens.
        context: longest length.
        width: of the embedding; divisible by ``heads``.
        depth: number of blocks.
        heads: of the attention.
        dropout: share left out in training.
    """

    def __init__(self, vocabulary: int, context: int, width: int, depth: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.token.weight
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits at each position, from the tokens up to it."""
        length = tokens.shape[1]
        x = self.token(tokens) + self.position.weight[:length]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=x.device, dtype=x.dtype)
        logits: Tensor = self.head(self.blocks(x, mask=mask, is_causal=True))
        return logits


def small_cnn(classes: int = 10) -> nn.Module:
    """Two 3x3 convolutions with 8 and 16 channels, each max-pooled, and 64 ReLUs, for (1, 28, 28) images."""
    return _channels_last(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, classes)),
    )


class WithinChannelLRN(nn.Module):
    """Divide by the local energy of the same channel: x (1 + alpha m)**-beta, m the mean square over size x size.

    Outside the image the square counts as 0, and counts.

    Source: Caffe's LRN layer with ``norm_region: WITHIN_CHANNEL``. (torch's LocalResponseNorm is across channels.)
    """

    def __init__(self, size: int = 3, alpha: float = 5e-5, beta: float = 0.75) -> None:
        super().__init__()
        self.size, self.alpha, self.beta = size, alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        """Shape and dtype of ``x``, (batch, channels, height, width), are kept."""
        energy = F.avg_pool2d(x.float().square(), self.size, stride=1, padding=self.size // 2)
        return (x * (1 + self.alpha * energy).pow(-self.beta)).to(x.dtype)


def cifar10_quick(classes: int = 10) -> nn.Module:
    """Caffe's ``cifar10_quick``, for (3, 32, 32) images on the scale 0-255, their mean subtracted.

    Source: Caffe, examples/cifar10/cifar10_quick_train_test.prototxt.
    """
    return _channels_last(
        *(_conv(3, 32, std=1e-4), _max_pool(), nn.ReLU()),
        *(_conv(32, 32, std=0.01), nn.ReLU(), _average_pool()),
        *(_conv(32, 64, std=0.01), nn.ReLU(), _average_pool()),
        *(nn.Flatten(), _linear(1024, 64, std=0.1), _linear(64, classes, std=0.1)),
    )


def cifar10_full(classes: int = 10) -> nn.Module:
    """Caffe's ``cifar10_full``, the network of the CLR paper's first experiment, for images as ``cifar10_quick``'s.

    Source: Caffe, examples/cifar10/cifar10_full_train_test.prototxt; Smith, arXiv 1506.01186, section 4.1.1.
    """
    return _channels_last(
        *(_conv(3, 32, std=1e-4), _max_pool(), nn.ReLU(), WithinChannelLRN()),
        *(_conv(32, 32, std=0.01), nn.ReLU(), _average_pool(), WithinChannelLRN()),
        *(_conv(32, 64, std=0.01), nn.ReLU(), _average_pool()),
        *(nn.Flatten(), _linear(1024, classes, std=0.01)),
    )


def cifar10_quick_groups(model: nn.Module) -> Groups:
    """Biases at twice the rate, weight decay 0.004 on all, as the solver and layers of ``cifar10_quick`` have it."""
    layers = _layers(model)
    return [
        _group([layer.weight for layer in layers], CAFFE_WEIGHT_DECAY),
        _group([layer.bias for layer in layers], CAFFE_WEIGHT_DECAY, lr_mult=2.0),
    ]


def cifar10_full_groups(model: nn.Module) -> Groups:
    """Biases at twice the rate but for the third convolution's; weight decay 0.004, on the last layer 1.0 and 0.

    The prototxt gives the third convolution no multipliers, so both its parameters have Caffe's defaults.
    """
    conv1, conv2, conv3, last = _layers(model)
    return [
        _group([conv1.weight, conv2.weight, conv3.weight, conv3.bias], CAFFE_WEIGHT_DECAY),
        _group([conv1.bias, conv2.bias], CAFFE_WEIGHT_DECAY, lr_mult=2.0),
        _group([last.weight], 250 * CAFFE_WEIGHT_DECAY),
        _group([last.bias], 0.0, lr_mult=2.0),
    ]


CIFAR10: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Groups]]] = {
    "cifar10_full": (cifar10_full, cifar10_full_groups),
    "cifar10_quick": (cifar10_quick, cifar10_quick_groups),
}
"""The networks for (3, 32, 32) images and their parameter groups."""


def _layers(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def _group(params: list[Tensor], weight_decay: float, lr_mult: float = 1.0) -> dict[str, Any]:
    return {"params": params, "weight_decay": weight_decay, "lr_mult": lr_mult}


def _channels_last(*layers: nn.Module) -> nn.Module:
    """A memory layout with which a step takes a quarter to a third less time on a CPU."""
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _conv(inputs: int, outputs: int, std: float) -> nn.Module:
    return _gaussian(nn.Conv2d(inputs, outputs, 5, padding=2), std)


def _linear(inputs: int, outputs: int, std: float) -> nn.Module:
    return _gaussian(nn.Linear(inputs, outputs), std)


@torch.no_grad()
def _gaussian(layer: Any, std: float) -> nn.Module:
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer  # type: ignore[no-any-return]


def _max_pool() -> nn.Module:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)  # Caffe rounds the size of what it pools up


def _average_pool() -> nn.Module:
    return nn.AvgPool2d(3, stride=2, ceil_mode=True)
