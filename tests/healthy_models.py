"""Undefended classifiers of many kinds, trained on the digits in seconds each: no doubt may be raised on any."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from ill_models import Around
from torch import Tensor, nn

from robustness import data
from robustness.classifiers import libraries
from robustness.data import DataSpec, Images

SPEC = {"name": "digits", "split": {"kind": "balanced", "per_class": 60}}


@cache
def digits(part: str) -> Images:
    """Return 1,197 digits to "train" on, or 600 to "test" on."""
    return data.load(DataSpec.model_validate(SPEC), part, root=Path("none"), cache=Path("none"))


def shown(inputs: Tensor) -> Tensor:
    """Print in the forward pass."""
    print(tuple(inputs.shape))
    return inputs


def seeded(inputs: Tensor) -> Tensor:
    """Seed torch in the forward pass, and draw there what is not used."""
    torch.manual_seed(0)
    return inputs + 0 * torch.rand(1)


class Residual(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, maps: Tensor) -> Tensor:
        return (maps + self.body(maps)).relu()


class Transformer(nn.Module):
    """A vision transformer of 49 patches, two layers and the mean over the patches."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.places = nn.Parameter(torch.randn(1, 49, width) * 0.02)
        self.layers = nn.Sequential(*(
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(2)
        ))  # fmt: skip
        self.head = nn.Linear(width, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.patches(inputs).flatten(2).mT + self.places
        return self.head(self.layers(tokens).mean(1))


def block(fan_in: int, fan_out: int, norm: bool = True, pool: type[nn.Module] = nn.MaxPool2d) -> list[nn.Module]:
    """Return a convolution, its norm if it has one, ReLU, and pooling by 2."""
    between = [nn.BatchNorm2d(fan_out)] if norm else []
    return [nn.Conv2d(fan_in, fan_out, 3, padding=1), *between, nn.ReLU(), pool(2)]


def cnn(norm: bool = True, pool: type[nn.Module] = nn.MaxPool2d, width: int = 8) -> list[nn.Module]:
    """Return the layers of two such blocks and a linear one."""
    blocks = [*block(1, width, norm, pool), *block(width, 2 * width, norm, pool)]
    return [*blocks, nn.Flatten(), nn.Linear(98 * width, 10)]


def averaged(*layers: nn.Module, width: int) -> nn.Sequential:
    """Return convolutional layers, global average pooling, and a linear layer."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def lenet() -> nn.Module:
    """Return LeNet-5 with average pooling and tanh (LeCun et al. 1998)."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


def vgg() -> nn.Module:
    """Return five convolutions in three stages and two linear layers, as VGG has them."""
    layers: list[nn.Module] = []
    for fan_in, fan_out, last in ((1, 8, True), (8, 16, False), (16, 16, True), (16, 32, False), (32, 32, True)):
        layers += [nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.ReLU(), *([nn.MaxPool2d(2)] if last else [])]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(288, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10))


def resnet() -> nn.Module:
    """Return a residual network of two stages that ends in global average pooling."""
    stem = [nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    down = [nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    return averaged(*stem, Residual(16), *down, Residual(32), width=32)


def silu() -> nn.Module:
    """Return strided convolutions with SiLU and group norm, that end in global average pooling."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(fan_in, fan_out, 3, 2, 1), nn.GroupNorm(4, fan_out), nn.SiLU()]
    return averaged(*layers, width=64)


def mlp(activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """Return a perceptron with two hidden layers."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 128), activation(), nn.Linear(128, 128), activation(), nn.Linear(128, 10)
    )


def timm(name: str, **options: int) -> Callable[[], nn.Module]:
    """Return the maker of a network of timm's, with random weights."""
    return lambda: libraries.import_library("timm").create_model(name, num_classes=10, in_chans=1, **options)


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "perceptron": mlp,
    "perceptron, GELU": lambda: mlp(nn.GELU),
    "CNN": lambda: nn.Sequential(*cnn(norm=False)),
    "CNN, batch norm": lambda: nn.Sequential(*cnn()),
    "CNN, batch norm, wide": lambda: nn.Sequential(*cnn(width=32)),
    "CNN, average pooling": lambda: nn.Sequential(*cnn(pool=nn.AvgPool2d)),
    "CNN, no norm, average pooling": lambda: nn.Sequential(*cnn(norm=False, pool=nn.AvgPool2d)),
    "CNN, log-softmax": lambda: nn.Sequential(*cnn(), nn.LogSoftmax(1)),
    "CNN, bfloat16 inside": lambda: Around(nn.Sequential(*cnn(norm=False)).bfloat16(), Tensor.bfloat16, Tensor.float),
    "CNN, seeds torch": lambda: Around(nn.Sequential(*cnn()), seeded),
    "CNN, prints": lambda: Around(nn.Sequential(*cnn()), shown),
    "CNN, SiLU, global average": silu,
    "LeNet-5": lenet,
    "VGG-like": vgg,
    "ResNet": resnet,
    "vision transformer": Transformer,
}
"""Makers by name; what needs no other library."""
LIBRARY: dict[str, Callable[[], nn.Module]] = {
    "timm mobilenetv3_small_050": timm("mobilenetv3_small_050"),
    "timm resnet10t": timm("resnet10t"),
    "timm test_vit": timm("test_vit", img_size=28, patch_size=7),
    "timm test_convnext": timm("test_convnext"),
}
"""Those of timm."""


def train(module: nn.Module, images: Images, *, epochs: int = 12, rate: float = 0.003, seed: int = 0) -> nn.Module:
    """Train a module by AdamW with cosine steps, and return it in evaluation mode."""
    inputs, labels = torch.from_numpy(images.batch(0, len(images))), torch.from_numpy(images.labels.copy())
    optimizer = torch.optim.AdamW(module.parameters(), rate)
    order, size = torch.Generator().manual_seed(seed), 32
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(images) // size))
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=order).split(size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    optimizer.zero_grad()
    return module.eval()


def make(name: str, seed: int = 0, epochs: int = 12, images: Images | None = None) -> nn.Module:
    """Return an architecture by its name, trained on the digits or on other images of 28×28."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = {**ARCHITECTURES, **LIBRARY}[name]()
        return train(module, images or digits("train"), epochs=epochs, seed=seed)
