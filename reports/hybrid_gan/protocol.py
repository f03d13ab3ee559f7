"""What the hybrid-gan paper does, as cards: targets, the four classifiers with both heads, and their clean twins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

COUNTS = {
    "airplane": 2000, "automobile": 1669, "bird": 2028, "cat": 2019, "deer": 2200, "dog": 2031, "frog": 2081,
    "horse": 2257, "ship": 2032, "truck": 2439,
}  # fmt: skip
"""Table 1: training images of each class, of either kind."""
VALIDATION, TEST = 500, 500
"""Of each class, of either kind."""
HELD_OUT = 10 * VALIDATION / (sum(COUNTS.values()) + 10 * VALIDATION)
"""The share of a set by which the epoch is chosen, so that the rest is table 1's."""
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet56": ("models.cifar_targets:resnet56", {}),
    "vgg19_bn": ("models.vgg:vgg", {"depth": 19}),
    "mobilenet": ("models.cifar_targets:mobilenet_x1_4", {}),
    "shufflenet": ("models.cifar_targets:shufflenet_x2", {}),
    "repvgg_a2": ("models.repvgg:repvgg", {}),
    # The paper keeps the stem with a 7x7 convolution of stride 2; `stem = "small"` is the one usual at 32x32.
    "resnet50": ("models.large:resnet50", {"stem": "imagenet"}),
}
TITLES = {
    "resnet56": "ResNet-56",
    "vgg19_bn": "VGG19_bn",
    "mobilenet": "MobileNetV2 ×1.4",
    "shufflenet": "ShuffleNetV2 ×2.0",
    "repvgg_a2": "RepVGG_a2",
    "resnet50": "ResNet-50, 7×7 stem",
}
# The text says five and names three; the other two are those of public code of the same attack.
TARGETS = ("resnet56", "vgg19_bn", "mobilenet", "shufflenet", "repvgg_a2")
CLASSIFIERS = ("vgg19_bn", "shufflenet", "repvgg_a2", "resnet50")
# ResNet-50 is no target, so the generator that it meets is that of the other residual network.
ATTACKED_AS = {"resnet50": "resnet56"}
HEADS = ("classify", "detect")
STOPPED = {"vgg19_bn": 53}
"""Epochs after which a network's training ended, of 99."""
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
EPSILONS = [0.0078, 0.0157, 0.0314, 0.05, 0.1]
STREAMS = (0.03, 0.05, 0.10)
"""Shares of adversarial images in the contaminated streams."""


@dataclass(frozen=True)
class Scale:
    """How much of the protocol a run does."""

    name: str
    width: float
    epochs: int
    part: float
    """Of the counts of table 1."""
    generator: Mapping[str, Any]
    batch_size: int = 100
    targets: tuple[float, int] | None = None
    """Width and epochs of the targets, if they differ from those of the networks that are trained on the set."""

    @property
    def of_targets(self) -> Scale:
        """The scale at which the targets are trained."""
        width, epochs = self.targets or (self.width, self.epochs)
        return replace(self, width=width, epochs=epochs)

    def counts(self, extra: int = 0) -> list[int]:
        """Return the source images of each class for training, with those by which the epoch is chosen."""
        return [max(2, round(self.part * (count + extra))) for count in COUNTS.values()]


SCALES = {
    "smoke": Scale("smoke", 1 / 16, 1, 0.01, {"steps": 10, "width": 4, "batch_size": 20, "bound": 0.1}, batch_size=20),
    "short": Scale("short", 0.25, 9, 1.0, {"steps": 800, "width": 16, "bound": 0.1}),
    # The networks as wide as the paper's, one part at a time (`--only resnet50`); the targets of the short scale.
    "medium": Scale("medium", 1.0, 30, 1.0, {"steps": 800, "width": 16, "bound": 0.1}, targets=(0.25, 9)),
    "full": Scale("full", 1.0, 99, 1.0, {"steps": 4000, "width": 32, "bound": 0.1}),
}


def epochs(scale: Scale, network: str) -> int:
    """Return for how many epochs a network is trained."""
    return min(scale.epochs, STOPPED.get(network, scale.epochs))


def targets(source: str, scale: Scale, file: str) -> dict[str, dict[str, Any]]:
    """Return the cards of the five targets, trained on what the hybrid set leaves."""
    names = {name: f"{source}-target-{name}" for name in TARGETS}
    return {key: _card(key, name, scale.of_targets, file) for name, key in names.items()}


def attacked_as(network: str) -> str:
    """
    Return the target whose generator a network meets.

    >>> attacked_as("vgg19_bn"), attacked_as("resnet50")
    ('vgg19_bn', 'resnet56')
    """
    return ATTACKED_AS.get(network, network)


SOURCE = "train_source"
"""The array by which an image and its twin stay on one side when the epoch is chosen."""


def trained(source: str, scale: Scale, hybrid: str, real: str) -> dict[str, dict[str, Any]]:
    """Return the cards of the four classifiers with both heads on the hybrid set, and on its real half alone."""
    made = {}
    for name in CLASSIFIERS:
        for head in HEADS:
            made[f"{source}-{head}-{name}"] = _card(f"{source}-{head}-{name}", name, scale, hybrid, head, SOURCE)
        # Half as many images: twice the epochs are as many updates, so that the twins differ in what they saw alone.
        made[f"{source}-clean-{name}"] = _card(f"{source}-clean-{name}", name, scale, real, passes=2)
    return made


def attacked(
    cards: Mapping[str, Mapping[str, Any]], source: str, hybrid: str, real: str, scale: Scale
) -> Iterator[tuple[str, Any]]:
    """
    Return each model on the hybrid set's test images, and with the sweeps that it is judged by on the real ones alone.

    ``own`` is the generator that the hybrid set was made with, fitted to the target of the same architecture
    (`attacked_as`); ``anew`` one that is fitted to the swept model itself. A detector is tested on images that were
    made before (`probes`): its own labels say nothing to an attack on classes.
    """
    for name, table in cards.items():
        head, network = name.split("-")[1:]
        if head == "detect":
            yield from _detecting(name, table, network, hybrid)
            continue
        target = f"{source}-target-{attacked_as(network)}.toml"
        gan = {"kind": "conditional-advgan", **scale.generator, "strengths": EPSILONS}
        sweeps: dict[str, Any] = {
            "own": {**gan, "source": target},
            "fgsm": {"kind": "fgsm", "strengths": EPSILONS},
            "noise": {"kind": "uniform", "strengths": EPSILONS},
            "anew": gan,
        }
        recipe = {"callable": "models.defences.given:fit", "needs": {"trained": f"{name}.toml"}}
        for where, file, judged in (("hybrid", hybrid, {}), ("real", real, sweeps)):
            made = {**table, "name": f"{name}@{where}", "recipe": recipe, "sweeps": judged}
            yield f"{name}@{where}", {**made, "data": {**_without_groups(table["data"]), "file": file}}


def _without_groups(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != "groups"}


def probes(network: str) -> str:
    """Name the file of what a detector is tested on beside the hybrid set."""
    return f"probes-{network}.npz"


def _detecting(name: str, table: Mapping[str, Any], network: str, hybrid: str) -> Iterator[tuple[str, Any]]:
    recipe = {"callable": "models.defences.given:fit", "needs": {"trained": f"{name}.toml"}}
    for where, file in (("hybrid", hybrid), ("probes", probes(network))):
        made = {**table, "name": f"{name}@{where}", "recipe": recipe}
        yield f"{name}@{where}", {**made, "data": {**_without_groups(table["data"]), "file": file}}


def undefended(cards: Mapping[str, Mapping[str, Any]], scale: Scale) -> dict[str, dict[str, Any]]:
    """Return the targets with the generator that was fitted to each, and with FGSM."""
    sweeps = {
        "own": {"kind": "conditional-advgan", **scale.generator, "strengths": EPSILONS},
        "fgsm": {"kind": "fgsm", "strengths": EPSILONS},
    }
    return {f"{name}@targets": {**table, "name": f"{name}@targets", "sweeps": sweeps} for name, table in cards.items()}


def _card(
    name: str,
    network: str,
    scale: Scale,
    file: str,
    head: str = "classify",
    groups: str | None = None,
    passes: int = 1,
) -> dict[str, Any]:
    factory, arguments = NETWORKS[network]
    length = passes * epochs(scale, network)
    data: dict[str, Any] = {"name": "array", "file": file, **({"groups": groups} if groups else {})}
    if head == "detect":
        data["labels"] = "kind"
    return {
        "name": name,
        "scale": scale.name,
        "paper": "hybrid-gan",
        "store_probabilities": True,
        "model": {
            "factory": factory,
            "arguments": {
                **arguments, "width": scale.width, "mean": MEAN, "std": STD, "outputs": 2 if head == "detect" else 10
            },
        },
        "recipe": {
            "callable": "models.defences.plain:fit",
            "arguments": {
                "epochs": length, "batch_size": scale.batch_size, "optimizer": "adamw", "learning_rate": 1e-3,
                "weight_decay": 5e-4, "schedule": "restarts", "period": max(1, length // 3), "flip": True,
                "held_out": HELD_OUT,
            },
            "start": "manual",
        },
        "data": data,
    }  # fmt: skip
