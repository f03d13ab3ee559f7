"""What the report trains and sweeps, as cards: for every seed one network without a defence and two with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SYSTEMS = {
    "plain": "undefended",
    "fgsm": "FGSM training",
    "pgd": "PGD-7 training",
}
"""By the attack of their training; as the page names them."""
EPSILONS = [0.0039, 0.0078, 0.0157, 0.0314, 0.0627, 0.1255]
"""1/255 to 32/255, in units of the pixel range."""
USUAL = "0.0314"
"""8/255, the usual budget in L∞, by which the criteria judge."""
SEEDS = (0, 1, 2)
ATTACKS = {"fgsm": "FGSM", "pgd": "PGD"}
STEPS = 20
"""Of PGD, with which the trained networks are attacked."""


@dataclass(frozen=True)
class Source:
    """A data set: its ``[data]``, and the arguments of the network for its images."""

    data: Mapping[str, Any]
    model: Mapping[str, Any]
    about: str


SOURCES = {
    "gtsrb": Source(
        {"name": "array", "file": "gtsrb32.npz.xz", "groups": "train_track", "split": {"kind": "predefined"}},
        {"mean": [0.29, 0.264, 0.274], "std": [0.26, 0.251, 0.257]},
        "GTSRB at 32×32, 43 classes, official split; whole tracks held out to choose the epoch",
    ),
    "digits": Source(
        {"name": "digits", "split": {"kind": "balanced", "per_class": 60}},
        {"channels": 1, "size": 28, "outputs": 10},
        "scikit-learn's digits, to see that all works",
    ),
}


@dataclass(frozen=True)
class Scale:
    """How much of the protocol a run does."""

    name: str
    epochs: int
    few: int
    """Images of the test set that are attacked by many steps; all are by one."""
    width: float = 1.0
    plan: Mapping[str, Any] = field(default_factory=dict)


SCALES = {
    "smoke": Scale("smoke", epochs=1, few=20, width=0.25, plan={"batch_size": 32}),
    "short": Scale("short", epochs=6, few=1000),
    "full": Scale("full", epochs=12, few=1000),
}


def cards(source: str, scale: Scale, seed: int) -> dict[str, dict[str, Any]]:
    """Return every card of a seed as a table, by name."""
    return {f"{source}-{seed}-{system}": _card(source, scale, seed, system) for system in SYSTEMS}


def _card(source: str, scale: Scale, seed: int, system: str) -> dict[str, Any]:
    about = SOURCES[source]
    return {
        # The number of images is part of what a result is made of, and no key of a card says it of one sweep alone.
        "description": f"{SYSTEMS[system]}, seed {seed}; {scale.few:,} test images under PGD",
        "paper": "signs-adversarial",
        "scale": scale.name,
        "model": {"factory": "models.signs:signs", "arguments": {**about.model, "width": scale.width}},
        "recipe": {**recipe(system, scale), "seed": seed, "start": "manual"},
        "data": dict(about.data),
        "sweeps": dict(_sweeps(f"{source}-{seed}-plain", system)),
    }


def recipe(system: str, scale: Scale) -> dict[str, Any]:
    """
    Return callable and arguments of a training; both defences have one objective, and differ in its attack alone.

    >>> recipe("pgd", SCALES["full"])["callable"]
    'models.defences.iterated:fit'
    """
    plan = {
        "epochs": scale.epochs, "optimizer": "adamw", "learning_rate": 0.003, "weight_decay": 0.01, "warmup": 0.2,
        "shift": 3, **scale.plan,
    }  # fmt: skip
    if system == "plain":
        return {"callable": "models.defences.plain:fit", "arguments": plan}
    attack = {"fgsm": ("adversarial", {}), "pgd": ("iterated", {"steps": 7})}
    module, own = attack[system]
    return {"callable": f"models.defences.{module}:fit", "arguments": {**plan, "epsilon": 0.0627, **own}}


def _sweeps(twin: str, system: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return both attacks on the network itself, and those of the undefended twin where there is one."""
    attacks: dict[str, dict[str, Any]] = {
        "fgsm": {"kind": "fgsm", "strengths": EPSILONS},
        "pgd": {"kind": "pgd", "steps": STEPS, "relative_step_size": 0.1, "strengths": EPSILONS},
    }
    yield from attacks.items()
    if system != "plain":
        for name, table in attacks.items():
            yield f"twin-{name}", {**table, "source": f"{twin}.toml"}
