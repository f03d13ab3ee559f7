"""What the hybrid-gan paper does, as cards: targets, the four classifiers with both heads, and their clean twins."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from reports import running
from reports.running import Run

_PROTOCOL = running.protocol("hybrid_gan")
SOURCES, SCALES, NETWORKS = _PROTOCOL.sources, _PROTOCOL.scales, _PROTOCOL.networks
COUNTS, VALIDATION, TEST = _PROTOCOL.counts, _PROTOCOL.validation, _PROTOCOL.test
TARGETS, CLASSIFIERS, HEADS = _PROTOCOL.targets, _PROTOCOL.classifiers, _PROTOCOL.heads
STREAMS, EPSILONS, SWEEPS = _PROTOCOL.streams, _PROTOCOL.epsilons, _PROTOCOL.sweeps
TITLES = {name: network["title"] for name, network in NETWORKS.items()}
# The fraction of a set by which the epoch is chosen, so that the rest is table 1's.
HELD_OUT = 10 * VALIDATION / (sum(COUNTS.values()) + 10 * VALIDATION)
# Files in the data root of a run.
TARGET_DATA, HYBRID, REAL = "targets.npz", "hybrid.npz", "real.npz"
# The part of a result that has the targets.
UNDEFENDED = "targets"
Tables = dict[str, dict[str, Any]]


def of_targets(scale: Any) -> Any:
    """Return the scale at which the targets are trained."""
    return SimpleNamespace(**{**vars(scale), **scale.targets})


def counts(scale: Any, extra: int = 0) -> list[int]:
    """Return the source images of each class for training, with those by which the epoch is chosen."""
    return [max(2, round(scale.part * (count + extra))) for count in COUNTS.values()]


def parts(source: str) -> dict[str, list[str]]:
    """
    Return the parts of a result in the order in which they are measured, and the networks of each.

    A network that saw the hybrid set and its twin are compared image by image, so they are in one part.
    """
    return {
        UNDEFENDED: [f"{source}-target-{name}" for name in TARGETS],
        **{name: [f"{source}-classify-{name}", f"{source}-clean-{name}"] for name in CLASSIFIERS},
        **{f"detect-{name}": [f"{source}-detect-{name}"] for name in CLASSIFIERS},
    }


def epochs(scale: Any, network: str) -> int:
    """Return for how many epochs a network is trained."""
    return int(min(scale.epochs, NETWORKS[network].get("stopped", scale.epochs)))


def attacked_as(network: str) -> str:
    """Return the target whose generator attacks a network."""
    return str(NETWORKS[network].get("attacked_as", network))


def probes(network: str) -> str:
    """Return the file of the images that a detector is tested on beside the hybrid set."""
    return f"probes-{network}.npz"


def array(file: str) -> dict[str, Any]:
    """Return a card's ``[data]`` for an array file."""
    return {"name": "array", "file": file}


def generator(scale: Any) -> dict[str, Any]:
    """Return the perturbation by a generator."""
    return {"kind": "conditional-advgan", **scale.generator}


def targets(source: str, scale: Any) -> Tables:
    """Return the cards of the five targets, trained on what the hybrid set leaves."""
    return _named(source, "target", {name: _card(name, of_targets(scale), array(TARGET_DATA)) for name in TARGETS})


def trained(source: str, scale: Any) -> Tables:
    """Return the cards of the four classifiers with both heads on the hybrid set, and on its real half alone."""
    # By the groups an image and its twin stay on one side when the epoch is chosen.
    hybrid = {**array(HYBRID), "groups": "train_source"}
    cards: Tables = {}
    for name in CLASSIFIERS:
        cards |= _named(source, "classify", {name: _card(name, scale, hybrid)})
        cards |= _named(source, "detect", {name: _card(name, scale, {**hybrid, "labels": "kind"}, outputs=2)})
        # Half as many images: twice the epochs are as many updates, so the twins differ in their images alone.
        cards |= _named(source, "clean", {name: _card(name, scale, array(REAL), passes=2)})
    return cards


def _named(source: str, head: str, cards: Tables) -> Tables:
    return {f"{source}-{head}-{name}": {"name": f"{source}-{head}-{name}", **card} for name, card in cards.items()}


def undefended(cards: Mapping[str, Mapping[str, Any]], scale: Any) -> Tables:
    """Return the targets with the generator that was fitted to each, and with FGSM."""
    sweeps = {"own": generator(scale) | {"strengths": EPSILONS}, "fgsm": {"kind": "fgsm", "strengths": EPSILONS}}
    return {f"{name}@targets": {**table, "name": f"{name}@targets", "sweeps": sweeps} for name, table in cards.items()}


def attacked(run: Run, cards: Mapping[str, Mapping[str, Any]]) -> Tables:
    """
    Return each model on the hybrid set's test images, and with the sweeps that it is judged by on the real ones alone.

    ``own`` is the generator that the hybrid set was made with, fitted to the target of the same architecture
    (`attacked_as`); ``anew`` one that is fitted to the swept model itself. A detector is tested on images that were
    made before (`probes`): an attack on classes cannot use its labels.
    """
    tables: Tables = {}
    for name, table in cards.items():
        head, network = name.split("-")[1:]
        gan = generator(run.scale) | {"strengths": EPSILONS}
        sweeps = {
            "own": {**gan, "source": f"{run.source}-target-{attacked_as(network)}.toml"},
            "fgsm": {"kind": "fgsm", "strengths": EPSILONS},
            "noise": {"kind": "uniform", "strengths": EPSILONS},
            "anew": gan,
        }
        images: dict[str, tuple[str, dict[str, Any]]] = {
            "hybrid": (HYBRID, {"sweeps": {}}),
            "real": (REAL, {"sweeps": sweeps}),
        }
        if head == "detect":
            images = {"hybrid": (HYBRID, {}), "probes": (probes(network), {})}
        recipe = {"callable": "models.defences.given:fit", "needs": {"trained": f"{name}.toml"}}
        data = {key: value for key, value in table["data"].items() if key != "groups"}
        for suffix, (file, more) in images.items():
            card = {**table, "name": f"{name}@{suffix}", "recipe": recipe, **more, "data": {**data, "file": file}}
            tables[f"{name}@{suffix}"] = card
    return tables


def _card(name: str, scale: Any, data: Mapping[str, Any], outputs: int = 10, passes: int = 1) -> dict[str, Any]:
    network, length = NETWORKS[name], passes * epochs(scale, name)
    return {
        "scale": scale.name,
        "paper": "hybrid-gan",
        "store_probabilities": True,
        "model": {
            "factory": network["factory"],
            "arguments": {
                **network.get("arguments", {}), "width": scale.width, **_PROTOCOL.statistics, "outputs": outputs
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
        "data": dict(data),
    }  # fmt: skip
