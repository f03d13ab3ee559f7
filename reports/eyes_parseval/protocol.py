"""What the eyes-parseval report does, as cards: for every fold ten networks, and those of approach 1."""

from __future__ import annotations

from itertools import product
from typing import Any

from reports import running

_PROTOCOL = running.protocol("eyes_parseval")
SOURCES, SCALES = _PROTOCOL.sources, _PROTOCOL.scales
EPSILONS, RATIOS, EXAMPLES, NAMES = _PROTOCOL.epsilons, _PROTOCOL.ratios, _PROTOCOL.examples, _PROTOCOL.names
NATURAL, TWINS, FIGURES = _PROTOCOL.natural, _PROTOCOL.twins, _PROTOCOL.figures
DENSE = [name for name in NAMES if name.startswith("dense")]
SYSTEMS = [name for name in NAMES if name not in DENSE]


def augmented(kind: str, epsilon: float, share: float) -> str:
    """Return the name of a system of approach 1, such as ``wrn+fgsm-0.003-25``."""
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
