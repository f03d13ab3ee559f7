"""torchvision's ResNet-50, ShuffleNetV2 and MobileNetV2 for 32x32, at any width (hybrid-gan)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from models.layers import Normalise, scaled
from robustness.util.torchvision_compat import models as zoo

Stem = Literal["small", "imagenet"]
"""``imagenet`` is the original's, which leaves a 32x32 image 1x1 in the last stage; ``small`` is usual at 32x32."""
Numbers = float | Sequence[float]
Original: Any = zoo.resnet.Bottleneck


class Bottleneck(Original):  # type: ignore[misc]  # torchvision has no types
    """torchvision's block with a part of its channels; ResNet builds it with the full numbers."""

    width = 1.0

    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: Any = None, *args: Any, **settings: Any
    ) -> None:
        fan_in = self.scaled(inplanes)
        fan_out = self.expansion * scaled(planes, self.width)
        if downsample is not None:
            downsample = nn.Sequential(nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), nn.BatchNorm2d(fan_out))
        super().__init__(fan_in, scaled(planes, self.width), stride, downsample, *args, **settings)

    @classmethod
    def scaled(cls, channels: int) -> int:
        """Return what a number of channels becomes: the stem's 64, or some planes times the expansion."""
        planes = channels // cls.expansion
        return scaled(channels, cls.width) if channels == 64 else int(cls.expansion * scaled(planes, cls.width))


def resnet50(
    channels: int = 3,
    outputs: int = 10,
    width: float = 1.0,
    stem: Stem = "small",
    mean: Numbers = 0.5,
    std: Numbers = 0.25,
) -> nn.Sequential:
    """
    Return logits, (N, ``outputs``), for images in [0, 1], (N, ``channels``, 32, 32): ResNet-50 (He et al. 2016).

    The small stem is one 3x3 convolution without stride or pooling.

    >>> import torch
    >>> resnet50(width=0.125).eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    block = type("Bottleneck", (Bottleneck,), {"width": width})
    network = zoo.resnet.ResNet(block, [3, 4, 6, 3], num_classes=outputs)
    first = scaled(64, width)
    if _small(stem):
        network.conv1 = nn.Conv2d(channels, first, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    else:
        network.conv1 = nn.Conv2d(channels, first, 7, 2, padding=3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.bn1 = nn.BatchNorm2d(first)
    network.fc = nn.Linear(Bottleneck.expansion * scaled(512, width), outputs)
    return nn.Sequential(Normalise(mean, std, channels), network)


def shufflenet(
    channels: int = 3,
    outputs: int = 10,
    width: float = 1.0,
    stem: Stem = "small",
    mean: Numbers = 0.5,
    std: Numbers = 0.25,
) -> nn.Sequential:
    """
    Return logits, (N, ``outputs``), for images in [0, 1], (N, ``channels``, 32, 32): ShuffleNetV2 1x (Ma et al. 2018).

    >>> import torch
    >>> shufflenet(width=0.25).eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    # A block splits its channels into halves.
    widths = [2 * scaled(full // 2, width) for full in (24, 116, 232, 464, 1024)]
    network = zoo.shufflenetv2.ShuffleNetV2([4, 8, 4], widths, num_classes=outputs)
    stride = 1 if _small(stem) else 2
    network.conv1[0] = nn.Conv2d(channels, widths[0], 3, stride, padding=1, bias=False)
    if stride == 1:
        network.maxpool = nn.Identity()
    return nn.Sequential(Normalise(mean, std, channels), network)


def mobilenet(
    channels: int = 3,
    outputs: int = 10,
    width: float = 1.0,
    stem: Stem = "small",
    mean: Numbers = 0.5,
    std: Numbers = 0.25,
) -> nn.Sequential:
    """
    Return logits, (N, ``outputs``), for images in [0, 1], (N, ``channels``, 32, 32): MobileNetV2 (Sandler et al. 2018).

    With the small stem the first two halvings are left out.

    >>> import torch
    >>> mobilenet(width=0.25).eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    stride = 1 if _small(stem) else 2
    blocks = [
        [1, 16, 1, 1], [6, 24, 2, stride], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]
    ]  # fmt: skip
    network = zoo.mobilenetv2.MobileNetV2(outputs, width, blocks, round_nearest=4, dropout=0.0)
    first = network.features[0][0]
    network.features[0][0] = nn.Conv2d(channels, first.out_channels, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(network.features[0][0].weight, mode="fan_out")
    return nn.Sequential(Normalise(mean, std, channels), network)


def _small(stem: str) -> bool:
    if stem not in ("small", "imagenet"):
        raise ValueError(f"`stem` must be small or imagenet, got {stem!r}; small is for images of 32x32")
    return stem == "small"
