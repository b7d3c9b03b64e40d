import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clr.tasks import networks
from clr.tasks.networks import WithinChannelLRN

CIFAR10 = pytest.mark.parametrize("name", networks.CIFAR10)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def pixels(batch: int = 4) -> Tensor:
    return torch.rand(batch, 3, 32, 32) * 255 - 128


@pytest.mark.parametrize(
    ("model", "images", "parameters"),
    [
        (networks.mlp(64, 32), torch.rand(5, 8, 8), 64 * 32 + 32 + 32 * 10 + 10),
        (networks.small_cnn(), torch.rand(5, 1, 28, 28), 80 + 16 * 72 + 16 + 784 * 64 + 64 + 650),
        (networks.cifar10_quick(), pixels(5), 2432 + 25_632 + 51_264 + 1024 * 64 + 64 + 650),
        (networks.cifar10_full(), pixels(5), 89_578),
    ],
    ids=["mlp", "small_cnn", "cifar10_quick", "cifar10_full"],
)
def test_a_network_has_its_parameters_and_gives_a_row_of_logits_per_image(
    model: nn.Module, images: Tensor, parameters: int
) -> None:
    logits = model(images)
    assert (logits.shape, logits.dtype) == ((5, 10), torch.float32)
    assert count(model) == parameters


@CIFAR10
def test_caffes_networks_start_from_its_gaussians_and_zero_biases(name: str) -> None:
    build, _ = networks.CIFAR10[name]
    torch.manual_seed(0)
    layers = [module for module in build().modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    expected = {"cifar10_full": [1e-4, 0.01, 0.01, 0.01], "cifar10_quick": [1e-4, 0.01, 0.01, 0.1, 0.1]}
    assert [layer.weight.std().item() for layer in layers] == pytest.approx(expected[name], rel=0.1)
    assert all(layer.bias is not None and not layer.bias.any() for layer in layers)


@CIFAR10
def test_two_networks_of_one_seed_are_equal_and_of_two_seeds_differ(name: str) -> None:
    build, _ = networks.CIFAR10[name]

    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat([parameter.flatten() for parameter in build().parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@CIFAR10
def test_the_groups_hold_every_parameter_once(name: str) -> None:
    build, groups_of = networks.CIFAR10[name]
    model = build()
    held = [id(parameter) for group in groups_of(model) for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


def test_cifar10_fulls_groups_are_the_prototxts() -> None:
    model = networks.cifar10_full()
    of = {
        id(parameter): (group["lr_mult"], group["weight_decay"])
        for group in networks.cifar10_full_groups(model)
        for parameter in group["params"]
    }
    assert [of[id(parameter)] for parameter in model.parameters()] == [
        *((1.0, 0.004), (2.0, 0.004)),
        *((1.0, 0.004), (2.0, 0.004)),
        *((1.0, 0.004), (1.0, 0.004)),
        *((1.0, 1.0), (2.0, 0.0)),
    ]


def test_cifar10_quicks_groups_are_the_prototxts() -> None:
    model = networks.cifar10_quick()
    weights, biases = networks.cifar10_quick_groups(model)
    assert [parameter.ndim for parameter in weights["params"]] == [4, 4, 4, 2, 2]
    assert [parameter.ndim for parameter in biases["params"]] == [1] * 5
    assert (weights["lr_mult"], biases["lr_mult"]) == (1.0, 2.0)
    assert weights["weight_decay"] == biases["weight_decay"] == 0.004


def test_a_group_of_its_own_decay_overrides_the_optimizers() -> None:
    optimizer = torch.optim.SGD(networks.cifar10_full_groups(networks.cifar10_full()), lr=0.1, weight_decay=0.5)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.004, 0.004, 1.0, 0.0]


def test_lrn_divides_by_the_mean_square_of_the_neighbourhood_in_the_same_channel() -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.float32) * 100
    norm = WithinChannelLRN(size=3, alpha=0.01, beta=0.75)
    expected = torch.empty_like(x)
    padded = F.pad(x, (1, 1, 1, 1))
    for row in range(5):
        for column in range(4):
            energy = (padded[:, :, row : row + 3, column : column + 3] ** 2).sum((2, 3)) / 9
            expected[:, :, row, column] = x[:, :, row, column] / (1 + 0.01 * energy) ** 0.75
    torch.testing.assert_close(norm(x), expected)


def test_lrn_knows_no_other_channel() -> None:
    x = torch.randn(1, 2, 6, 6) * 100
    other = x.clone()
    other[:, 1] = 0
    torch.testing.assert_close(WithinChannelLRN()(x)[:, 0], WithinChannelLRN()(other)[:, 0], rtol=0, atol=0)


def test_lrn_keeps_the_dtype_of_mixed_precision() -> None:
    x = torch.randn(1, 2, 6, 6, dtype=torch.bfloat16)
    assert WithinChannelLRN()(x).dtype == torch.bfloat16


@CIFAR10
def test_pooling_windows_start_at_the_first_pixel_and_the_last_is_cut_at_the_edge_as_in_caffe(name: str) -> None:
    build, _ = networks.CIFAR10[name]
    image = torch.rand(1, 1, 8, 8)
    windows = [[image[0, 0, y : y + 3, x : x + 3] for x in (0, 2, 4, 6)] for y in (0, 2, 4, 6)]
    pools = [module for module in build().modules() if isinstance(module, nn.MaxPool2d | nn.AvgPool2d)]
    for pool, reduced in zip(pools, (torch.max, torch.mean, torch.mean), strict=True):
        expected = torch.tensor([[reduced(window) for window in row] for row in windows])
        torch.testing.assert_close(pool(image)[0, 0], expected)


@CIFAR10
def test_caffes_networks_learn_at_the_papers_rates(name: str) -> None:
    build, groups_of = networks.CIFAR10[name]
    torch.manual_seed(0)
    labels = torch.arange(10) % 2
    images = pixels(10) + 60 * (labels * 2 - 1).view(-1, 1, 1, 1)
    model = build()
    optimizer = torch.optim.SGD(groups_of(model), lr=0.003, momentum=0.9)
    first = last = F.cross_entropy(model(images), labels).item()
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        last = loss.item()
    assert (first, last) == (pytest.approx(2.3, abs=0.1), pytest.approx(0.0, abs=0.5))
