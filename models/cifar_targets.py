"""
The targets of hybrid-gan that `models.large` does not have: ResNet-56, ShuffleNetV2 2x, MobileNetV2 1.4x, for 32x32.

They have the shapes of a public list of networks that were trained on CIFAR-10: no halving before the second stage.
`models.large` at width 2 or 1.4 is another network: the 2x ShuffleNetV2 is not twice as wide as the 1x in any layer
but the last, and MobileNetV2 has channels in multiples of eight.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from models.layers import Normalise, scaled
from robustness.util.torchvision_compat import models as zoo

Numbers = float | Sequence[float]
# He et al. 2016, section 4.2: 6n + 2 layers, n blocks of two convolutions for each of three stages.
BLOCKS = 9
STAGES = (16, 32, 64)


def resnet56(
    channels: int = 3, outputs: int = 10, width: float = 1.0, mean: Numbers = 0.5, std: Numbers = 0.25
) -> nn.Sequential:
    """
    Return ResNet-56: logits, (N, ``outputs``), of images in [0, 1], (N, ``channels``, 32, 32).

    Shortcuts between stages are 1x1 convolutions, as in the public list.

    >>> import torch
    >>> resnet56(width=0.25).eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    fan_in = scaled(STAGES[0], width)
    layers: list[nn.Module] = [_convolution(channels, fan_in, 3), nn.BatchNorm2d(fan_in), nn.ReLU(inplace=True)]
    for stage, full in enumerate(STAGES):
        fan_out = scaled(full, width)
        for block in range(BLOCKS):
            first = bool(stage) and not block
            shortcut = None
            if first:
                shortcut = nn.Sequential(_convolution(fan_in, fan_out, 1, 2), nn.BatchNorm2d(fan_out))
            layers.append(zoo.resnet.BasicBlock(fan_in, fan_out, 2 if first else 1, shortcut))
            fan_in = fan_out
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(fan_in, outputs))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(Normalise(mean, std, channels), network)


def shufflenet_x2(
    channels: int = 3, outputs: int = 10, width: float = 1.0, mean: Numbers = 0.5, std: Numbers = 0.25
) -> nn.Sequential:
    """
    Return ShuffleNetV2 2x (Ma et al. 2018): logits, (N, ``outputs``), of images in [0, 1], (N, ``channels``, 32, 32).

    ``width`` is a fraction of the 2x network's channels.

    >>> import torch
    >>> shufflenet_x2(width=0.125).eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    # A block splits its channels into halves.
    widths = [2 * scaled(full // 2, width) for full in (24, 244, 488, 976, 2048)]
    network = zoo.shufflenetv2.ShuffleNetV2([4, 8, 4], widths, num_classes=outputs)
    network.conv1[0] = _convolution(channels, widths[0], 3)
    network.maxpool = nn.Identity()
    return nn.Sequential(Normalise(mean, std, channels), network)


def mobilenet_x1_4(
    channels: int = 3, outputs: int = 10, width: float = 1.0, mean: Numbers = 0.5, std: Numbers = 0.25
) -> nn.Sequential:
    """
    Return MobileNetV2 1.4x: logits, (N, ``outputs``), of images in [0, 1], (N, ``channels``, 32, 32).

    ``width`` is a fraction of the 1.4x network's channels (Sandler et al. 2018). The last layer never has fewer than
    1,280.

    >>> import torch
    >>> mobilenet_x1_4(width=0.125).eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    if not width > 0:
        raise ValueError(f"`width` must be above 0, got {width}; 1 is the 1.4x network")
    blocks = [
        [1, 16, 1, 1],
        [6, 24, 2, 1],
        [6, 32, 3, 2],
        [6, 64, 4, 2],
        [6, 96, 3, 1],
        [6, 160, 3, 2],
        [6, 320, 1, 1],
    ]
    network = zoo.mobilenetv2.MobileNetV2(outputs, 1.4 * width, blocks, round_nearest=8)
    network.features[0][0] = _convolution(channels, network.features[0][0].out_channels, 3)
    nn.init.kaiming_normal_(network.features[0][0].weight, mode="fan_out")
    return nn.Sequential(Normalise(mean, std, channels), network)


def _convolution(fan_in: int, fan_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(fan_in, fan_out, kernel, stride, padding=kernel // 2, bias=False)
