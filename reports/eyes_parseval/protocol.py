"""What the eyes-parseval report does, as cards: for every fold ten networks, and those of approach 1."""

from __future__ import annotations

from itertools import product
from typing import Any

from reports import running

# Of FGSM and of uniform noise, in standard deviations of each crop.
EPSILONS = [0.001, 0.003, 0.005, 0.01, 0.03]
# Of table 8, in dB of the standardised crop: the printed ε beside them imply an rms of 1.03 to 1.26.
RATIOS = [50.0, 45.0, 40.0, 33.0]
# Stored examples of approach 1, as fractions of the training set.
SHARES = [0.25, 0.5, 0.75, 1.0]
EXAMPLES = ("fgsm", "noise")
# In the order of tables 8 and 10, then fully connected networks, which the README names; their sizes are not printed,
# so they are the project's.
SYSTEMS = ("parseval", "wrn", "parseval-adv", "wrn-adv", "cnn", "cnn-wd", "cnn-wd-adv", "cnn-orth")
DENSE = ("dense", "dense-parseval")
NAMES = {
    "parseval": "Parseval", "wrn": "ResNet (WRN-16-1)", "parseval-adv": "Parseval, adversarial",
    "wrn-adv": "ResNet, adversarial", "cnn": "CNN", "cnn-wd": "CNN, weight decay",
    "cnn-wd-adv": "CNN, weight decay + adversarial", "cnn-orth": "CNN, orthogonality",
    "dense": "fully connected", "dense-parseval": "fully connected, Parseval",
}  # fmt: skip
# Natural changes: the README's second aim is misclassification by natural transformation; it prints no number.
NATURAL: dict[str, list[float]] = {
    "brightness": [-0.3, 0.3], "contrast": [-0.5, 1.0], "rotation": [10.0, 20.0, 30.0], "translation": [1.0, 2.0, 4.0],
    "gaussian-blur": [0.5, 1.0, 2.0],
}  # fmt: skip
# The networks on which the examples of the published row were made, if not on the system itself.
TWINS = {"parseval-adv": "parseval", "wrn-adv": "wrn", "cnn-wd": "cnn", "cnn-wd-adv": "cnn", "cnn-orth": "cnn"}


_PROTOCOL = running.protocol("eyes_parseval")
SOURCES, SCALES = _PROTOCOL.sources, _PROTOCOL.scales


def augmented(kind: str, epsilon: float, share: float) -> str:
    """
    Return the name of a system of approach 1.

    >>> augmented("fgsm", 0.003, 0.25)
    'wrn+fgsm-0.003-25'
    """
    return f"wrn+{kind}-{epsilon:g}-{share:.0%}".removesuffix("%")


def cards(source: str, scale: Any, fold: int) -> dict[str, dict[str, Any]]:
    """Return every card of a fold as a table, by name: first what others need."""
    name, residual = f"{source}-{fold}", _plan(scale)
    systems = {system: _training(system, scale) for system in (*SYSTEMS, *DENSE)}
    if fold < scale.augmented:
        stored = {"callable": "models.defences.stored:fit", "needs": {"attacked": f"{name}-wrn.toml"}}
        for epsilon, share, kind in product(scale.epsilons, scale.shares, EXAMPLES):
            examples = {"kind": kind, "epsilon": epsilon, "share": share, "unit": "std"}
            systems[augmented(kind, epsilon, share)] = {**stored, "arguments": {**residual, **examples}}
    split = {"kind": "kfold", "k": scale.folds, "fold": fold}
    return {
        f"{name}-{system}": {
            "name": f"{name}-{system}",
            "scale": scale.name,
            "paper": "eyes-parseval",
            "store_probabilities": True,
            "model": _model(SOURCES[source], scale, system),
            "recipe": {**recipe, "start": "manual"},
            "data": {
                **SOURCES[source].data,
                "split": split,
                **({"num_test_images": scale.tested} if scale.tested else {}),
            },
            "sweeps": _sweeps(name, system, scale),
        }
        for system, recipe in systems.items()
    }


def _plan(scale: Any) -> dict[str, Any]:
    return {
        "epochs": scale.epochs, "batch_size": 64, "learning_rate": 0.1, "weight_decay": 1e-4, "schedule": "steps",
        "period": scale.period, "held_out": 0.0, "flip": "both",
    }  # fmt: skip


def _training(system: str, scale: Any) -> dict[str, Any]:
    kind, *options = system.split("-")
    plan = _plan(scale)
    if kind == "cnn":
        plan |= {"learning_rate": 0.01, "weight_decay": 1e-3 if "wd" in options else 0.0}
    if kind == "dense":
        # Without batch norm a rate of 0.1 diverges.
        plan["learning_rate"] = 0.01
    if "parseval" in (kind, *options) or "orth" in options:
        plan["beta"] = 0.001
    return {"callable": f"models.defences.{'listed' if 'adv' in options else 'plain'}:fit", "arguments": plan}


def _model(source: Any, scale: Any, system: str) -> dict[str, Any]:
    kind = system.partition("-")[0].partition("+")[0]
    arguments: dict[str, Any] = {"outputs": source.classes, "size": source.size, "width": scale.width}
    if kind == "cnn":
        return {"factory": "models.eyes:cnn", "arguments": arguments}
    if kind == "dense":
        return {"factory": "models.dense:dense", "arguments": {**arguments, "orthogonal": "parseval" in system}}
    arguments = {"depth": scale.depth, "k": scale.k, "outputs": source.classes}
    constraint = {"add": "convex", "orthogonal": True} if kind == "parseval" else {}
    return {"factory": "models.wrn:wrn", "arguments": arguments | constraint}


def _sweeps(fold: str, system: str, scale: Any) -> dict[str, dict[str, Any]]:
    """Return FGSM on the system itself and uniform noise by ratio and by ε, natural changes, the twin's examples."""
    sweeps: dict[str, dict[str, Any]] = {}
    for name, kind in (("fgsm", "fgsm"), ("noise", "uniform")):
        sweeps[name] = {"kind": kind, "unit": "image-std", "strengths": EPSILONS}
        sweeps[f"{name}-snr"] = {"kind": kind, "unit": "snr-std", "strengths": RATIOS}
    if "+" not in system:
        sweeps |= {kind: {"kind": kind, "strengths": NATURAL[kind]} for kind in scale.natural}
    if twin := TWINS.get(system):
        sweeps["twin-snr"] = {**sweeps["fgsm-snr"], "source": f"{fold}-{twin}.toml"}
    return sweeps
